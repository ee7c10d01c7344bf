#include "serve/decode.h"

#include "core/log.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS = 1024 }; // of a step, beside those of beams

struct pb_decoder {
    pb_decoding how;
    pb_store store;
    pb_model_engine *engine;
    pb_server *server;
    const pb_work *work; // of the last step
};

static pb_server_limits limits_of(size_t requests, size_t longest, size_t beam)
{
    size_t slots = requests * beam;
    return (pb_server_limits){.slots = slots,
                              .beam = beam,
                              .positions = longest,
                              .rows = slots + (longest > ROWS ? longest : ROWS),
                              .queue = SIZE_MAX};
}

static pb_err set_up(pb_decoder *d, const pb_model *m, pb_adapter *const *tenants, size_t n,
                     size_t requests, size_t longest)
{
    pb_server_limits limits = limits_of(requests, longest, d->how.beam);
    PB_TRY(pb_store_init(&d->store, n, SIZE_MAX, NULL));
    for (size_t i = 0; i < n; i++) {
        d->store.tenant[i] = (pb_tenant){.bytes = pb_adapter_resident(tenants[i]),
                                         .shape = i,
                                         .whole = tenants[i]->method->whole_prompt};
        pb_store_put(&d->store, i, tenants[i]);
    }
    PB_TRY(pb_model_engine_new(&d->engine, m, tenants, n, &d->store, &limits, longest));
    return pb_server_new(&d->server, &limits, pb_model_engine_get(d->engine), &d->store);
}

pb_err pb_decoder_new(pb_decoder **out, const pb_model *m, pb_adapter *const *tenants, size_t n,
                      size_t requests, size_t longest, const pb_decoding *how)
{
    *out = NULL;
    if (how->beam > PB_MOST_BEAMS || !isfinite(how->length_penalty))
        return pb_fail(PB_INPUT, "1 to 64 beams", "%zu beams, length penalty %g", how->beam,
                       how->length_penalty);
    pb_decoder *d = calloc(1, sizeof *d);
    if (!d)
        return pb_fail(PB_MEMORY, NULL, "no memory for a decoder");
    d->how = *how;
    d->how.beam = how->beam ? how->beam : 1;
    pb_err err = set_up(d, m, tenants, n, requests, longest);
    if (err)
        pb_decoder_free(d);
    else
        *out = d;
    return err;
}

void pb_decoder_free(pb_decoder *d)
{
    if (!d)
        return;
    pb_server_free(d->server);
    pb_model_engine_free(d->engine);
    pb_store_free(&d->store);
    free(d);
}

pb_err pb_decode(pb_decoder *d, pb_request *r, size_t n, void (*on_step)(void *, size_t),
                 void *self)
{
    pb_err err = PB_OK;
    pb_server_clear(d->server);
    for (size_t i = 0; i < n && !err; i++) {
        if (!r[i].how)
            r[i].how = &d->how;
        err = pb_server_submit(d->server, &r[i]);
        if (err)
            err = pb_context(err, "request %zu", i);
    }
    while (!err && (d->work = pb_server_step(d->server))) {
        if (on_step)
            on_step(self, n - pb_server_waiting(d->server) - pb_server_running(d->server));
        if (pb_interrupted())
            err = pb_fail(PB_INTERRUPTED, NULL, "interrupted while decoding");
    }
    pb_server_clear(d->server);
    return err;
}

pb_step *pb_decoder_step(pb_decoder *d)
{
    return pb_model_engine_step(d->engine);
}

const pb_work *pb_decoder_work(const pb_decoder *d)
{
    return d->work;
}

pb_err pb_decoder_need(size_t *bytes, const pb_model *m, pb_adapter *const *tenants, size_t n,
                       size_t requests, size_t longest, const pb_decoding *how)
{
    pb_server_limits limits = limits_of(requests, longest, how->beam ? how->beam : 1);
    return pb_model_engine_need(bytes, m, tenants, n, &limits, longest);
}
