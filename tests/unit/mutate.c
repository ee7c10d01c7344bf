// Random mutations of small valid files: every reader returns, with a value or an error. The same
// targets as the libFuzzer programs, from a seeded generator, so that a failure can be repeated.
//
// `unit_mutate --seeds DIR` writes the valid files instead, as a start for libFuzzer.
#include "core/file.h"
#include "core/rng.h"
#include "fuzz/adapter.h"
#include "fuzz/description.h"
#include "fuzz/gguf.h"
#include "fuzz/targets.h"
#include "fuzz/tokenizers.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

// What takes a millisecond each is tried less often: the sanitizers make it ten.
enum { MUTATIONS = 20000, FEWER = 4000, CAP = 1 << 16, VARIANTS = 4 };

typedef struct format {
    const char *name;
    seed_maker *seed;
    bool (*target)(const uint8_t *data, size_t size);
} format;

static const format formats[] = {
    {"tokenizer_model", seed_spm, target_spm},
    {"tokenizer_json", seed_json, target_json},
    {"safetensors", seed_safetensors, target_safetensors},
    {"config", seed_config, target_config},
    {"llama2c", seed_llama2c, target_llama2c},
    {"gguf", seed_gguf, target_gguf},
    {"tokenizer", seed_tokenizer, target_tokenizer},
    {"adapter", seed_adapter, target_adapter},
    {"description", seed_description, target_description},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

static size_t below(pb_rng *r, size_t n)
{
    return (size_t)pb_rng_below(r, n);
}

// One edit of data[0..size); returns the new size.
static size_t mutate(pb_rng *r, uint8_t *data, size_t size)
{
    static const uint64_t extremes[] = {0,          1,          0x7f,       0x80,      0xff,
                                        0x7fffffff, 0x80000000, 0xffffffff, INT64_MAX, UINT64_MAX,
                                        1 << 30,    100000000,  100000001};
    size_t at = size ? below(r, size) : 0, n;
    switch (below(r, 8)) {
    case 0: // flip a bit
        if (size)
            data[at] ^= (uint8_t)(1 << below(r, 8));
        return size;
    case 1: // another byte
        if (size)
            data[at] = (uint8_t)below(r, 256);
        return size;
    case 2: // truncate
        return at;
    case 3: // extend
        n = below(r, 64);
        if (n > CAP - size)
            n = CAP - size;
        for (size_t i = 0; i < n; i++)
            data[size + i] = (uint8_t)below(r, 256);
        return size + n;
    case 4: // splice: a part of it over another part
        n = size ? below(r, size - at) : 0;
        if (n)
            memmove(data + below(r, size - n), data + at, n);
        return size;
    case 5: // cut a part out
        n = size ? below(r, (size - at < 16 ? size - at : 16) + 1) : 0;
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 6: // double a part
        n = size ? below(r, (size - at < 16 ? size - at : 16) + 1) : 0;
        if (n > CAP - size)
            return size;
        memmove(data + at + n, data + at, size - at);
        return size + n;
    default: // an extreme number
        n = (size_t)1 << below(r, 4);
        if (at + n <= size)
            memcpy(data + at, &extremes[below(r, sizeof extremes / sizeof *extremes)], n);
        return size;
    }
}

static void test_mutations(void **state)
{
    const format *f = *state;
    static uint8_t seed[CAP], data[CAP];
    size_t accepted = 0;
    uint32_t mutations = strncmp(f->name, "tokenizer_", 10) ? MUTATIONS : FEWER;
    for (int v = 0; v < VARIANTS; v++) {
        size_t n = f->seed(seed, CAP, v);
        assert_true(f->target(seed, n)); // the seed itself is valid
    }
    for (uint32_t i = 0; i < mutations; i++) {
        pb_rng r = pb_rng_make(1, PB_STREAM_TEST, i);
        size_t size = f->seed(data, CAP, (int)(i % VARIANTS));
        for (size_t edits = 1 + below(&r, 4); edits > 0; edits--)
            size = mutate(&r, data, size);
        accepted += f->target(data, size);
    }
    // Some edits leave a valid file and most do not: the generator does reach the readers.
    assert_in_range(accepted, mutations / 100, mutations * 9 / 10);
}

static void test_truncations(void **state)
{
    const format *f = *state;
    static uint8_t seed[CAP];
    for (int v = 0; v < VARIANTS; v++) {
        size_t n = f->seed(seed, CAP, v);
        for (size_t size = 0; size < n; size++) {
            // A tokenizer's seed ends with the text; cutting only that leaves a valid file.
            bool accepted = f->target(seed, size);
            if (strncmp(f->name, "tokenizer", 9) != 0)
                assert_false(accepted);
        }
    }
}

static int write_seeds(const char *folder)
{
    static uint8_t data[CAP];
    for (size_t i = 0; i < N_FORMATS; i++) {
        for (int v = 0; v < VARIANTS; v++) {
            char path[4096];
            size_t n = formats[i].seed(data, CAP, v);
            if (pb_path(path, sizeof path, "%s/%s", folder, formats[i].name) ||
                pb_make_dirs(path) ||
                pb_path(path, sizeof path, "%s/%s/seed%d", folder, formats[i].name, v) ||
                pb_file_write(path, data, n)) {
                fprintf(stderr, "%s\n", pb_error_message());
                return 1;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
        return write_seeds(argv[2]);
    struct CMUnitTest tests[2 * N_FORMATS];
    char names[2 * N_FORMATS][64];
    for (size_t i = 0; i < N_FORMATS; i++) {
        void *which = (void *)&formats[i];
        snprintf(names[2 * i], sizeof *names, "mutations of %s", formats[i].name);
        snprintf(names[2 * i + 1], sizeof *names, "truncations of %s", formats[i].name);
        tests[2 * i] = (struct CMUnitTest){names[2 * i], test_mutations, NULL, NULL, which};
        tests[2 * i + 1] =
            (struct CMUnitTest){names[2 * i + 1], test_truncations, NULL, NULL, which};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
