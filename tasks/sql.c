// SQL: a table's columns and a question in English -> one SQL query; generated.
//
// Eight tables with two text columns and one of numbers; the prompt lists the columns in a random
// order. Counting, showing a column, and three aggregates, each in two wordings; a condition names
// its column ("with city Rome") or leaves it to be understood ("from Rome"). A meaning is the query
// itself, so no query of one split occurs in another.
//
// SQL is written in one way only (upper-case keywords, one space between tokens, text in single
// quotes, numbers bare), so exact match is exact.
#include "tasks/common/generate.h"

typedef struct column {
    const char *name;
    const pb_words *values;  // NULL: a number
    const char *preposition; // how a value is said without naming the column: "from" Rome
    unsigned most;           // greatest number
} column;

enum { NUMBER = 2, COLUMNS = 3 }; // the number column stands last
typedef struct table {
    const char *name;
    column col[COLUMNS];
} table;

static const table tables[] = {
    {"people",
     {{"name", &pb_names, "called", 0}, {"city", &pb_cities, "from", 0}, {"age", NULL, "", 90}}},
    {"books",
     {{"author", &pb_names, "by", 0}, {"colour", &pb_colours, "in", 0}, {"pages", NULL, "", 900}}},
    {"shops",
     {{"owner", &pb_names, "of", 0}, {"city", &pb_cities, "in", 0}, {"size", NULL, "", 500}}},
    {"meals",
     {{"cook", &pb_names, "by", 0}, {"food", &pb_foods, "of type", 0}, {"price", NULL, "", 90}}},
    {"toys",
     {{"kind", &pb_things, "of kind", 0},
      {"colour", &pb_colours, "in", 0},
      {"price", NULL, "", 90}}},
    {"trains",
     {{"driver", &pb_names, "of", 0}, {"city", &pb_cities, "to", 0}, {"speed", NULL, "", 300}}},
    {"gifts",
     {{"giver", &pb_names, "from", 0},
      {"thing", &pb_things, "of type", 0},
      {"year", NULL, "", 900}}},
    {"houses",
     {{"colour", &pb_colours, "in", 0}, {"city", &pb_cities, "in", 0}, {"rooms", NULL, "", 30}}},
};

static const char *const aggregates[][3] = {
    {"MAX", "highest", "largest"},
    {"MIN", "lowest", "smallest"},
    {"AVG", "average", "mean"},
};

// The condition in English, in front of which the things asked about stand, and in SQL.
static void condition(pb_line *say, pb_line *sql, const table *t, size_t col, pb_rng *r)
{
    const column *c = &t->col[col];
    pb_put(sql, " WHERE %s ", c->name);
    if (c->values) {
        const char *v = pb_pick(r, c->values);
        if (pb_rng_below(r, 2))
            pb_put(say, " with %s %s", c->name, v);
        else
            pb_put(say, " %s %s", c->preposition, v);
        pb_put(sql, "= '%s'", v);
    } else {
        unsigned v = 1 + (unsigned)pb_rng_below(r, c->most);
        size_t more = pb_rng_below(r, 2);
        if (pb_rng_below(r, 2))
            pb_put(say, " with %s %s %u", c->name, more ? "above" : "below", v);
        else
            pb_put(say, " with %s %s than %u", c->name, more ? "more" : "less", v);
        pb_put(sql, "%s %u", more ? ">" : "<", v);
    }
}

static void query(pb_line *say, pb_line *sql, const table *t, pb_rng *r)
{
    pb_line cond = {.n = 0}, cond_sql = {.n = 0};
    size_t col = pb_rng_below(r, COLUMNS), form = pb_rng_below(r, 3), way = pb_rng_below(r, 2);
    condition(&cond, &cond_sql, t, col, r);
    if (form == 0) {
        pb_put(say, way ? "how many %s%s are there?" : "count the %s%s.", t->name, cond.text);
        pb_put(sql, "SELECT COUNT(*) FROM %s%s", t->name, cond_sql.text);
    } else if (form == 1) {
        size_t want = (col + 1 + pb_rng_below(r, COLUMNS - 1)) % COLUMNS;
        const char *name = t->col[want].name;
        pb_put(say, way ? "what is the %s of %s%s?" : "show the %s of %s%s.", name, t->name,
               cond.text);
        pb_put(sql, "SELECT %s FROM %s%s", name, t->name, cond_sql.text);
    } else {
        // Aggregates stand over the number column, under a condition on a text column.
        const char *const *a = aggregates[pb_rng_below(r, 3)];
        const char *number = t->col[NUMBER].name;
        if (!t->col[col].values) {
            cond = cond_sql = (pb_line){.n = 0};
            condition(&cond, &cond_sql, t, pb_rng_below(r, NUMBER), r);
        }
        pb_put(say, "what is the %s %s of %s%s?", a[1 + way], number, t->name, cond.text);
        pb_put(sql, "SELECT %s(%s) FROM %s%s", a[0], number, t->name, cond_sql.text);
    }
}

static pb_err draw(pb_dataset *d, pb_rng *r, pb_split split, size_t left, pb_seen *seen)
{
    (void)left;
    const table *t = &tables[pb_rng_below(r, sizeof tables / sizeof *tables)];
    size_t order[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++)
        order[i] = i;
    pb_rng_shuffle(r, order, COLUMNS);
    pb_line say = {.n = 0}, sql = {.n = 0}, prompt = {.n = 0};
    query(&say, &sql, t, r);
    uint64_t key = pb_meaning(sql.text);
    bool is_new;
    if (pb_meaning_split(key) != split)
        return PB_OK;
    PB_TRY(pb_seen_add(seen, key, &is_new));
    if (!is_new)
        return PB_OK;
    pb_put(&prompt, "table %s: ", t->name);
    for (size_t i = 0; i < COLUMNS; i++)
        pb_put(&prompt, "%s%s", i ? ", " : "", t->col[order[i]].name);
    pb_put(&prompt, ". %s\n", say.text);
    const char *refs[] = {sql.text};
    pb_example e = {
        .prompt = prompt.text, .response = sql.text, .references = refs, .n_references = 1};
    return pb_dataset_add(d, split, &e);
}

static pb_err load(pb_dataset *d, const pb_task *task, const pb_task_args *args)
{
    return pb_generate(d, task, args, draw);
}

PB_TASK(sql) = {
    .name = "sql",
    .doc = "text to SQL: columns and a question -> a query, exactly checkable",
    .source = "generated from the seed by tasks/sql.c",
    .licence = "as this project",
    .version = "1",
    .kind = PB_GENERATE,
    .metric = "exact_match",
    .max_new = 96,
    .sizes = {2000, 100, 200},
    .load = load,
};
