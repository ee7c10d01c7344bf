// The target of task descriptions: see targets.h. The first two bytes are the number of bytes of
// rows that follow; the rest is the description, whose files a.csv, a.tsv, a.jsonl and a.json are
// all those rows.
#ifndef PB_FUZZ_DESCRIPTION_H
#define PB_FUZZ_DESCRIPTION_H

#include "fuzz/targets.h"
#include "tasks/common/describe.h"

static char description_folder[] = "/tmp/pb_fuzz_XXXXXX";
static const char *const description_files[] = {"a.csv", "a.tsv", "a.jsonl", "a.json"};

static void description_clean(void)
{
    char path[64];
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", description_folder, description_files[i]);
        unlink(path);
    }
    rmdir(description_folder);
}

static void description_rows(const uint8_t *data, size_t size)
{
    static bool made;
    const char *memory = target_file(data, size);
    char path[64];
    for (size_t i = 0; i < 4 && !made; i++) {
        if (!i)
            REQUIRE(mkdtemp(description_folder) && !atexit(description_clean));
        snprintf(path, sizeof path, "%s/%s", description_folder, description_files[i]);
        REQUIRE(!symlink(memory, path));
    }
    made = true;
}

static void description_example(const pb_task *t, const pb_example *e)
{
    bool found = false;
    REQUIRE(e->prompt && e->response);
    if (t->kind == PB_RANK) {
        REQUIRE(e->label < e->n_candidates && !strcmp(e->candidates[e->label], e->response));
        for (size_t i = 0; i < e->n_candidates; i++)
            for (size_t j = 0; j < i; j++)
                REQUIRE(strcmp(e->candidates[i], e->candidates[j]));
        return;
    }
    for (size_t i = 0; i < e->n_references; i++)
        found = found || !strcmp(e->references[i], e->response);
    REQUIRE(found && !e->n_candidates);
}

// What is made obeys the contract of tasks, and is made again alike.
static inline bool target_description(const uint8_t *data, size_t size)
{
    size_t rows = size < 2 ? 0 : (size_t)(data[0] | data[1] << 8);
    if (size < 2 || rows > size - 2)
        return false;
    pb_task *t;
    description_rows(data + 2, rows);
    if (target_refused(pb_describe(&t, (const char *)data + 2 + rows, size - 2 - rows, "fuzz",
                                   description_folder)))
        return false;
    char hash[2][65];
    bool refused = false;
    for (size_t k = 0; k < 3 && !refused; k++) {
        pb_dataset *d;
        pb_task_args args = {.data = description_folder, .limit = {k == 2, k == 2, k == 2}};
        REQUIRE(!pb_dataset_new(&d));
        refused = target_refused(t->load(d, t, &args));
        REQUIRE(!refused || k == 0);
        for (pb_split s = 0; s < PB_N_SPLITS && !refused; s++) {
            REQUIRE(k < 2 || pb_dataset_count(d, s) <= 1);
            for (size_t i = 0; i < pb_dataset_count(d, s); i++)
                description_example(t, pb_dataset_at(d, s, i));
        }
        if (k < 2)
            pb_dataset_hash(d, hash[k]);
        pb_dataset_free(d);
    }
    REQUIRE(refused || !strcmp(hash[0], hash[1]));
    pb_describe_free(t);
    return !refused;
}

static inline size_t seed_description(uint8_t *out, size_t cap, int variant)
{
#define SEED_HEAD "{\"doc\":\"d\",\"source\":\"s\",\"licence\":\"l\",\"version\":\"1\",\"kind\":"
    static const char *const texts[][2] = {
        {"q,a\n\"one, \"\"two\"\"\",1\nthree,2\n\"four\nfive\",3\n", SEED_HEAD
         "\"generate\",\"metric\":\"bleu\",\"train\":{\"file\":\"a.csv\",\"share\":[0,0.6]},"
         "\"valid\":{\"file\":\"a.csv\",\"share\":[0.6,1]},\"split_by\":\"{q}\","
         "\"prompt\":[\"{q}{{{a}}}\",\"x\"],\"response\":\"{a}\",\"max_new\":9}"},
        {"{\"q\":\"yes or no\",\"l\":1,\"c\":[\"x\",\"y\"]}\n{\"q\":\"up or "
         "on\",\"l\":0,\"c\":[\"z\","
         "\"w\"]}\n",
         SEED_HEAD
         "\"rank\",\"metric\":\"accuracy\",\"test\":\"a.jsonl\",\"extract\":{\"field\":\"q\","
         "\"pattern\":\"^(?<a>.*) or (?<b>.*)$\"},\"prompt\":\"{a}, {b}\","
         "\"candidates\":[\" {c}\"],\"label\":\"{l}\",\"skip\":[\"equal candidates\"]}"},
        {"{\"data\":[{\"t\":\"a\",\"qas\":[{\"q\":\"b\",\"r\":[{\"x\":\"1\"},{\"x\":\"2\"}]},"
         "{\"q\":\"c\",\"r\":[]}]}]}",
         SEED_HEAD
         "\"generate\",\"metric\":\"exact_match\",\"rows\":\"data.qas\",\"train\":\"*.json\","
         "\"skip\":[\"empty response\"],\"prompt\":\"{t}: {q}\",\"response\":\"{r.x}\"}"},
        {"x\t1\ny\t2\nx\t3\nz\t2.5\n",
         SEED_HEAD "\"generate\",\"metric\":\"bleu\",\"columns\":[\"q\",\"a\"],\"folder\":\".\","
                   "\"train\":\"a.tsv\",\"test\":[\"a.tsv\",{\"file\":\"a.tsv\",\"prompt\":\"p\"}],"
                   "\"group\":true,\"drop_shared\":true,\"leave_out\":{\"field\":\"q\",\"pattern\":"
                   "\"^z\",\"why\":\"w\"},\"prompt\":\"{q}\",\"response\":\"{a}\"}"}};
#undef SEED_HEAD
    const char *rows = texts[variant % 4][0], *text = texts[variant % 4][1];
    size_t at = 0;
    seed_put(out, cap, &at, &(uint8_t[]){(uint8_t)strlen(rows), (uint8_t)(strlen(rows) >> 8)}, 2);
    seed_put(out, cap, &at, rows, strlen(rows));
    seed_put(out, cap, &at, text, strlen(text));
    return at;
}

#endif
