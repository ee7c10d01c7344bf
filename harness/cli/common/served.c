#include "cli/common/served.h"

#include "methods/method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pb_work pb_served_work(const pb_served_step *s)
{
    return (pb_work){.batch = {.n_rows = (size_t)s->rows, .n_seg = (size_t)s->segments},
                     .n_out = (size_t)s->outputs,
                     .prefill = (size_t)s->prefill,
                     .decode = (size_t)s->decode,
                     .tenants = (size_t)s->tenants,
                     .adapter_bytes = (size_t)s->adapter_bytes,
                     .keys = (size_t)s->keys,
                     .pairs = (size_t)s->pairs};
}

pb_err pb_served_traffic(pb_traffic *out, pb_due **due, const pb_served_file *f)
{
    size_t n = f->serving->n_requests;
    *due = malloc((n + 1) * sizeof **due);
    if (!*due)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu requests", n);
    for (size_t i = 0; i < n; i++) {
        const pb_served *r = &f->serving->request[i];
        (*due)[i] = (pb_due){.at = r->due,
                             .tenant = (uint32_t)r->tenant,
                             .prompt = (uint32_t)r->prompt,
                             .output = (uint32_t)r->steps};
    }
    size_t warm_up = (size_t)json_integer_value(json_object_get(f->serving->about, "warm_up"));
    *out = (pb_traffic){*due, n, f->clients, warm_up < n ? warm_up : n, &f->how};
    return PB_OK;
}

// ---------------------------------------------------------------- reading

static pb_err read_kinds(pb_served_file *f)
{
    const json_t *methods = json_object_get(f->serving->about, "methods");
    const char *name;
    json_t *v;
    size_t at = 0;
    f->n_kinds = json_object_size(methods);
    f->bytes = calloc(f->n_kinds + 1, sizeof *f->bytes);
    f->whole = calloc(f->n_kinds + 1, sizeof *f->whole);
    if (!f->bytes || !f->whole)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu kinds of adapters", f->n_kinds);
    for (size_t i = 0; i < f->n_kinds; i++)
        json_object_foreach((json_t *)methods, name, v)
        {
            if ((size_t)json_integer_value(json_object_get(v, "index")) != i)
                continue;
            const char *method = json_string_value(json_object_get(v, "method"));
            const pb_method *m = method ? pb_method_find(method) : NULL;
            f->whole[i] = m && m->whole_prompt;
            f->bytes[i] = (size_t)json_integer_value(json_object_get(v, "bytes_per_tenant"));
            at += (size_t)snprintf(f->kinds + at, sizeof f->kinds - at, "%s%s", i ? ":" : "", name);
            if (at >= sizeof f->kinds)
                return pb_fail(PB_UNSUPPORTED, NULL,
                               "the names of %zu kinds of adapters are too "
                               "long",
                               f->n_kinds);
        }
    return f->n_kinds ? PB_OK : pb_fail(PB_INPUT, NULL, "it names no methods");
}

static pb_err read_limits(pb_served_file *f)
{
    const json_t *c = f->records.v[0].config;
    int64_t slots, rows, queue, beam, clients = 0, memory = 0, tenants, threads;
    PB_TRY(pb_json_int(c, "slots", &slots, 1, 1 << 16));
    PB_TRY(pb_json_int(c, "rows", &rows, 2, 1 << 20));
    PB_TRY(pb_json_int(c, "queue", &queue, 1, (int64_t)1 << 40));
    PB_TRY(pb_json_int(c, "beam", &beam, 1, PB_MOST_BEAMS));
    PB_TRY(pb_json_int(c, "tenants", &tenants, 1, 1 << 24));
    PB_TRY(pb_json_int(c, "threads", &threads, 1, 1024));
    PB_TRY(pb_json_opt_int(c, "clients", &clients, 0, 1 << 20));
    PB_TRY(pb_json_opt_int(c, "adapter_memory", &memory, 0, (int64_t)1 << 50));
    size_t longest = 0;
    for (size_t i = 0; i < f->serving->n_requests; i++) {
        const pb_served *r = &f->serving->request[i];
        size_t n = (size_t)(r->prompt + r->output);
        longest = n > longest ? n : longest;
    }
    f->limits = (pb_server_limits){.slots = (size_t)slots,
                                   .beam = (size_t)beam,
                                   .positions = longest,
                                   .rows = (size_t)rows,
                                   .queue = (size_t)queue};
    f->how = (pb_decoding){(size_t)beam, 1, 0};
    f->tenants = (size_t)tenants;
    f->clients = (size_t)clients;
    f->threads = (size_t)threads;
    f->loads = memory > 0;
    f->memory = memory > 0 ? (size_t)memory : SIZE_MAX;
    return PB_OK;
}

// What the operations counted, divided by what they were counted for.
static void read_sizes(pb_served_file *f)
{
    double rows = 0, outs = 0, pairs = 0, keys = 0, steps = 0;
    double flops[PB_SERVED_PARTS] = {0}, bytes[PB_SERVED_PARTS] = {0}, least = INFINITY;
    for (size_t i = 0; i < f->serving->n_steps; i++) {
        const pb_served_step *s = &f->serving->step[i];
        rows += (double)s->rows;
        outs += (double)s->outputs;
        pairs += (double)s->pairs;
        keys += (double)s->keys;
        steps += s->outputs > 0;
        for (size_t k = 0; k < PB_SERVED_PARTS; k++) {
            flops[k] += (double)s->flops[k];
            bytes[k] += (double)s->bytes[k];
        }
        least = fmin(least, (double)s->bytes[0]);
    }
    f->sizes = (pb_cost_sizes){.weights = least,
                               .head = bytes[3] / steps,
                               .position = bytes[1] / keys,
                               .row = flops[0] / rows,
                               .logits = flops[3] / outs,
                               .pair = flops[1] / pairs};
}

static pb_err read_file(pb_served_file *f)
{
    const pb_record *r = &f->records.v[0];
    f->serving = r->serving;
    if (!f->serving)
        return pb_fail(PB_INPUT, "files of `pedrobench serve` do", "it holds no served workload");
    if (!pb_record_is(r, "complete"))
        return pb_fail(PB_INPUT, "serve it again", "it is %s", r->status);
    PB_TRY(read_kinds(f));
    PB_TRY(read_limits(f));
    read_sizes(f);
    const json_t *a = f->serving->about;
    f->backbone = json_number_value(json_object_get(a, "backbone_bytes"));
    f->activations = json_number_value(json_object_get(a, "activation_bytes"));
    double counted = json_number_value(json_object_get(a, "counted_ns"));
    while (f->from < f->serving->n_steps && (double)f->serving->step[f->from].begin < counted)
        f->from++;
    return PB_OK;
}

pb_err pb_served_open(pb_served_file *f, const char *path)
{
    *f = (pb_served_file){.path = path};
    PB_TRY(pb_records_load(&f->records, &path, 1));
    pb_err err = f->records.n == 1 ? read_file(f)
                                   : pb_fail(PB_INPUT, "name one file", "%zu files", f->records.n);
    if (err) {
        err = pb_context(err, "%s", path);
        pb_served_close(f);
    }
    return err;
}

void pb_served_close(pb_served_file *f)
{
    if (!f->path)
        return;
    pb_records_free(&f->records);
    free(f->bytes);
    free(f->whole);
    *f = (pb_served_file){0};
}
