#include "serve/generation.h"

#include <stdlib.h>
#include <string.h>

struct pb_generation {
    pb_generation_args a;
    pb_decoder *decoder;
    pb_decoding how;
    pb_request *request;          // (requests)
    int32_t *out;                 // (requests, fresh)
    pb_generation_counts *counts; // of the current run, or NULL
};

static pb_decoding decoding(size_t beam)
{
    return (pb_decoding){.beam = beam, .length_penalty = 1};
}

pb_err pb_generation_new(pb_generation **out, const pb_model *m, pb_adapter *const *adapters,
                         size_t n, const pb_generation_args *args)
{
    pb_err err = PB_OK;
    pb_decoding how = decoding(args->beam);
    pb_generation *g = *out = calloc(1, sizeof *g);
    if (!g)
        return pb_fail(PB_MEMORY, NULL, "no memory for generations");
    g->a = *args;
    g->request = calloc(args->requests, sizeof *g->request);
    g->out = malloc(args->requests * args->fresh * sizeof *g->out);
    if (!g->request || !g->out)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu requests", args->requests));
    PB_GO(pb_decoder_new(&g->decoder, m, adapters, n, args->requests, args->prompt + args->fresh,
                         &how));
    pb_step_time(pb_decoder_step(g->decoder));
done:
    if (err) {
        pb_generation_free(g);
        *out = NULL;
    }
    return err;
}

void pb_generation_free(pb_generation *g)
{
    if (!g)
        return;
    pb_decoder_free(g->decoder);
    free(g->request);
    free(g->out);
    free(g);
}

static void count(void *self, size_t done)
{
    const pb_generation *g = self;
    const pb_counts *step = pb_step_counts(pb_decoder_step(g->decoder));
    int kind = pb_decoder_work(g->decoder)->prefill ? PB_PROMPT_STEPS : PB_DECODE_STEPS;
    (void)done;
    for (int c = 0; c < PB_COMPONENTS; c++)
        pb_counts_add(&(*g->counts)[kind][c], &step[c]);
}

pb_err pb_generation_run(pb_generation *g, size_t first, size_t n, const int *tenant, size_t beam,
                         pb_generation_counts *counts)
{
    const pb_generation_args *a = &g->a;
    g->how = decoding(beam);
    g->counts = counts;
    for (size_t i = first; i < first + n; i++)
        g->request[i] = (pb_request){.prompt = a->prompts + i * a->prompt,
                                     .n_prompt = a->prompt,
                                     .max_new = a->fresh,
                                     .tenant = tenant[i],
                                     .out = g->out + i * a->fresh,
                                     .how = &g->how,
                                     .fixed = true};
    return pb_decode(g->decoder, g->request + first, n, counts ? count : NULL, g);
}

uint64_t pb_generation_digest(const pb_generation *g, size_t request)
{
    const pb_request *r = &g->request[request];
    uint64_t h = 14695981039346656037u, score; // FNV-1a, over words
    for (size_t i = 0; i < r->n_out; i++)
        h = (h ^ (uint32_t)r->out[i]) * 1099511628211u;
    memcpy(&score, &r->score, sizeof score);
    return (h ^ score) * 1099511628211u;
}

pb_err pb_generation_need(size_t *bytes, const pb_model *m, pb_adapter *const *adapters, size_t n,
                          const pb_generation_args *args)
{
    pb_decoding how = decoding(args->beam);
    PB_TRY(
        pb_decoder_need(bytes, m, adapters, n, args->requests, args->prompt + args->fresh, &how));
    for (size_t i = 0; i < n; i++)
        *bytes += pb_adapter_resident(adapters[i]);
    return PB_OK;
}
