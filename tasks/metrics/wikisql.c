// WikiSQL (Zhong, Xiong and Socher 2017): does a query say the same as the reference (logical
// form), and does it give the same answer (execution)? Queries have one form:
//
//   SELECT [MAX|MIN|COUNT|SUM|AVG] column FROM table [WHERE column op value [AND ...]]    op = > <
//
// Keywords count in any case, operators stand between spaces, values may stand in ' or " quotes;
// columns are compared without white space, columns and values in lower case. What stands for the
// table is not compared: the question is always about one. AND is in capitals, as a value may hold
// the word. A reference of another form (the derived data set has a few broken ones) is matched as
// text.
//
// Logical form, as lib/query.py of the data set has it: equal column and aggregate, and equal
// *sets* of conditions. Execution, as evaluate.py and lib/dbengine.py have it: equal lists of
// results from SQLite; values in lower case; against a column of type real a value is a number
// (commas cut; else the first number in it). As there, several conditions on one column all take
// the last one's value.
#include "tasks/metrics/metrics.h"

#include "tasks/metrics/text.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_CONDITIONS = 16 };

typedef struct condition {
    char *column, *value; // as compared
    char op;
} condition;

typedef struct query {
    char *column;
    const char *aggregate; // of the list below
    condition cond[MAX_CONDITIONS];
    size_t n;
    bool valid;
} query;

static const char *const aggregates[] = {"MAX", "MIN", "COUNT", "SUM", "AVG"};

typedef struct span {
    const char *p;
    size_t n;
} span;

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static span trim(span s)
{
    while (s.n && is_blank(*s.p))
        s.p++, s.n--;
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

// Whether the word stands at s[i], parted from its neighbours by white space or the ends.
static bool word_at(span s, size_t i, const char *word)
{
    size_t n = strlen(word);
    bool exact = !strcmp(word, "AND");
    return i + n <= s.n && !(exact ? strncmp : strncasecmp)(s.p + i, word, n) &&
           (i == 0 || is_blank(s.p[i - 1])) && (i + n == s.n || is_blank(s.p[i + n]));
}

static size_t skip_word(span s, size_t i)
{
    while (i < s.n && is_blank(s.p[i]))
        i++;
    while (i < s.n && !is_blank(s.p[i]))
        i++;
    return i;
}

// Cuts *s at the first such word at i or later: returns what stands before it and leaves what
// follows. Without the word everything stands before it; *found tells.
static span cut(span *s, size_t i, const char *word, bool *found)
{
    while (i < s->n && !word_at(*s, i, word))
        i++;
    *found = i < s->n;
    span before = {s->p, i};
    size_t skip = *found ? i + strlen(word) : s->n;
    *s = (span){s->p + skip, s->n - skip};
    return trim(before);
}

static pb_err copy_column(char **out, span s)
{
    PB_TRY(pb_lower(out, s.p, s.n));
    char *p = *out;
    for (const char *q = *out; *q;) {
        const char *from = q;
        if (!pb_is_white(pb_next_char(&q)))
            while (from < q)
                *p++ = *from++;
    }
    *p = 0;
    return PB_OK;
}

// Takes a value off the front: quoted, up to the quote that the end or AND follows; or up to AND.
static bool take_value(span *rest, span *value)
{
    bool more;
    span s = trim(*rest);
    char quote = s.n && (*s.p == '"' || *s.p == '\'') ? *s.p : 0;
    for (size_t i = 1; quote && i < s.n; i++) {
        if (s.p[i] != quote)
            continue;
        span after = trim((span){s.p + i + 1, s.n - i - 1});
        if (after.n && !word_at(after, 0, "AND"))
            continue;
        *value = (span){s.p + 1, i - 1};
        *rest = after;
        cut(rest, 0, "AND", &more);
        return !more || trim(*rest).n;
    }
    *rest = s;
    *value = cut(rest, 1, "AND", &more);
    return value->n && !quote && (!more || trim(*rest).n);
}

// Takes a column and the operator behind it, a word of its own, off the front.
static bool take_operator(span *rest, span *column, char *op)
{
    static const char ops[][2] = {"=", ">", "<"};
    for (size_t i = 0; i < rest->n; i++)
        for (size_t k = 0; k < 3; k++)
            if (word_at(*rest, i, ops[k])) {
                *op = *ops[k];
                *column = trim((span){rest->p, i});
                *rest = (span){rest->p + i + 1, rest->n - i - 1};
                return column->n > 0;
            }
    return false;
}

static void query_free(query *q)
{
    free(q->column);
    for (size_t i = 0; i < q->n; i++) {
        free(q->cond[i].column);
        free(q->cond[i].value);
    }
}

static pb_err conditions(query *q, span rest)
{
    for (rest = trim(rest); rest.n; rest = trim(rest)) {
        span column, value;
        char op;
        if (q->n == MAX_CONDITIONS || !take_operator(&rest, &column, &op) ||
            !take_value(&rest, &value)) {
            q->valid = false;
            return PB_OK;
        }
        condition *c = &q->cond[q->n++];
        *c = (condition){.op = op};
        PB_TRY(copy_column(&c->column, column));
        PB_TRY(pb_lower(&c->value, value.p, value.n));
    }
    return PB_OK;
}

// A text that is no query leaves q->valid false.
static pb_err parse(query *q, const char *text)
{
    *q = (query){.aggregate = ""};
    span s = trim((span){text, strlen(text)});
    if (s.n && s.p[s.n - 1] == ';')
        s = trim((span){s.p, s.n - 1});
    bool from, where;
    if (!word_at(s, 0, "SELECT"))
        return PB_OK;
    s = trim((span){s.p + strlen("SELECT"), s.n - strlen("SELECT")});
    // A column may be called like a keyword: the one behind it is the keyword then.
    size_t first = skip_word(s, 0);
    for (size_t i = 0; i < sizeof aggregates / sizeof *aggregates && !*q->aggregate; i++) {
        span rest = s;
        if (!word_at(s, 0, aggregates[i]))
            continue;
        cut(&rest, skip_word(s, first), "FROM", &from);
        if (from) {
            q->aggregate = aggregates[i];
            s = trim((span){s.p + first, s.n - first});
        }
    }
    span column = cut(&s, skip_word(s, 0), "FROM", &from);
    if (!from)
        return PB_OK;
    PB_TRY(copy_column(&q->column, column));
    s = trim(s);
    q->valid = cut(&s, skip_word(s, 0), "WHERE", &where).n > 0 && (!where || trim(s).n);
    return where && q->valid ? conditions(q, s) : PB_OK;
}

static bool has(const query *q, const condition *c)
{
    for (size_t i = 0; i < q->n; i++)
        if (q->cond[i].op == c->op && !strcmp(q->cond[i].column, c->column) &&
            !strcmp(q->cond[i].value, c->value))
            return true;
    return false;
}

static bool same(const query *a, const query *b)
{
    if (!a->valid || strcmp(a->column, b->column) || strcmp(a->aggregate, b->aggregate))
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!has(b, &a->cond[i]))
            return false;
    for (size_t i = 0; i < b->n; i++)
        if (!has(a, &b->cond[i]))
            return false;
    return true;
}

pb_err pb_wikisql_logical_form(double *items, const pb_outputs *o)
{
    pb_err err = PB_OK;
    for (size_t i = 0; i < o->n && !err; i++) {
        query h, r;
        items[i] = 0;
        err = parse(&h, o->hyp[i]);
        for (size_t j = 0; j < o->n_refs[i] && !err; j++) {
            double equal = 0;
            err = parse(&r, o->refs[i][j]);
            if (!err && !r.valid)
                err = pb_exact_match(&equal, NULL, &o->hyp[i],
                                     (const char *const *[]){&o->refs[i][j]}, (size_t[]){1}, 1);
            if (equal > 0 || (!err && r.valid && same(&h, &r)))
                items[i] = 1;
            query_free(&r);
        }
        query_free(&h);
    }
    return err;
}

// ---------------------------------------------------------------- execution

bool pb_wikisql_has_tables(const pb_outputs *o)
{
    for (size_t i = 0; i < o->n; i++)
        if (!o->tables || !o->tables[i])
            return false;
    return o->n > 0;
}

static pb_err no_query(const char *text)
{
    return pb_fail(PB_INPUT, "the form is SELECT [MAX] column FROM table WHERE column = \"value\"",
                   "the reference \"%.200s\" is no query of WikiSQL's form", text);
}

typedef struct database {
    sqlite3 *db;
    const char *path;
} database;

static pb_err failed(const database *d, const char *what)
{
    return pb_fail(PB_INPUT, NULL, "%s: cannot %s: %s", d->path, what,
                   d->db ? sqlite3_errmsg(d->db) : "no memory");
}

static pb_err open_database(database *d, const char *path)
{
    if (d->db && !strcmp(d->path, path))
        return PB_OK;
    sqlite3_close(d->db);
    d->path = path;
    return sqlite3_open_v2(path, &d->db, SQLITE_OPEN_READONLY, NULL) ? failed(d, "open it") : PB_OK;
}

// The number of a column in the table, or -1.
static pb_err column_number(int *out, const pb_sql_table *t, const char *name)
{
    *out = -1;
    for (size_t i = 0; i < t->n_columns && *out < 0; i++) {
        char *own;
        PB_TRY(copy_column(&own, (span){t->column[i], strlen(t->column[i])}));
        if (!strcmp(own, name))
            *out = (int)i;
        free(own);
    }
    return PB_OK;
}

static bool to_number(double *out, const char *s)
{
    char *plain = strdup(s), *p = plain, *end;
    if (!plain)
        return false;
    for (const char *q = s; *q; q++)
        if (*q != ',')
            *p++ = *q;
    *p = 0;
    *out = strtod(plain, &end);
    bool all = end > plain && !*end && !strpbrk(plain, "xX");
    free(plain);
    if (all)
        return true;
    for (; *s; s++) { // [-+]?\d*\.\d+|\d+
        const char *digits = s + (*s == '-' || *s == '+'), *q = digits;
        size_t whole = strspn(q, "0123456789");
        q += whole;
        size_t part = *q == '.' ? strspn(q + 1, "0123456789") : 0;
        if (part || (whole && digits == s)) {
            *out = strtod(s, &end);
            return true;
        }
    }
    return false;
}

// Prepares the query; *ready is NULL when it cannot be asked of this table.
static pb_err prepare(sqlite3_stmt **ready, const database *d, const pb_sql_table *t,
                      const query *q)
{
    pb_err err = PB_OK;
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    sqlite3_stmt *s = NULL;
    int column;
    *ready = NULL;
    if (!f)
        return pb_fail(PB_MEMORY, NULL, "no memory for a query");
    PB_GO(column_number(&column, t, q->column));
    if (column < 0)
        goto done;
    fprintf(f, "SELECT %s(col%d) FROM \"%s\"", q->aggregate, column, t->name);
    for (size_t i = 0; i < q->n; i++) {
        PB_GO(column_number(&column, t, q->cond[i].column));
        if (column < 0)
            goto done;
        fprintf(f, "%s col%d %c :col%d", i ? " AND" : " WHERE", column, q->cond[i].op, column);
    }
    fflush(f);
    if (sqlite3_prepare_v2(d->db, text, -1, &s, NULL))
        goto done;
    for (size_t i = 0; i < q->n; i++) {
        char name[32];
        const char *type = NULL;
        double x;
        PB_GO(column_number(&column, t, q->cond[i].column));
        snprintf(name, sizeof name, "col%d", column);
        if (sqlite3_table_column_metadata(d->db, NULL, t->name, name, &type, NULL, NULL, NULL,
                                          NULL))
            goto done;
        snprintf(name, sizeof name, ":col%d", column);
        int at = sqlite3_bind_parameter_index(s, name);
        if (!type || strcasecmp(type, "real")) {
            sqlite3_bind_text(s, at, q->cond[i].value, -1, SQLITE_STATIC);
        } else {
            if (!to_number(&x, q->cond[i].value))
                goto done;
            sqlite3_bind_double(s, at, x);
        }
    }
    *ready = s;
    s = NULL;
done:
    sqlite3_finalize(s);
    fclose(f);
    free(text);
    return err;
}

static bool same_value(sqlite3_stmt *a, sqlite3_stmt *b)
{
    int x = sqlite3_column_type(a, 0), y = sqlite3_column_type(b, 0);
    bool numbers =
        (x == SQLITE_INTEGER || x == SQLITE_FLOAT) && (y == SQLITE_INTEGER || y == SQLITE_FLOAT);
    if (numbers)
        return sqlite3_column_double(a, 0) == sqlite3_column_double(b, 0);
    return x == y && (x == SQLITE_NULL || !strcmp((const char *)sqlite3_column_text(a, 0),
                                                  (const char *)sqlite3_column_text(b, 0)));
}

static pb_err answers(double *out, const database *d, const pb_sql_table *t, const query *h,
                      const query *r, const char *text)
{
    sqlite3_stmt *a = NULL, *b = NULL;
    pb_err err = PB_OK;
    PB_GO(prepare(&b, d, t, r));
    if (!b)
        PB_GO(pb_fail(PB_INPUT, "do the columns' names fit?",
                      "%s: the reference \"%.200s\" cannot be asked of %s", d->path, text,
                      t->name));
    if (h->valid)
        PB_GO(prepare(&a, d, t, h));
    bool equal = a;
    while (equal) {
        int x = sqlite3_step(a), y = sqlite3_step(b);
        if (x != SQLITE_ROW || y != SQLITE_ROW) {
            equal = x == y && x == SQLITE_DONE;
            break;
        }
        equal = same_value(a, b);
    }
    *out = equal ? 1 : *out;
done:
    sqlite3_finalize(a);
    sqlite3_finalize(b);
    return err;
}

pb_err pb_wikisql_execution(double *items, const pb_outputs *o)
{
    pb_err err = PB_OK;
    database d = {0};
    for (size_t i = 0; i < o->n && !err; i++) {
        query h = {0}, r = {0};
        items[i] = 0;
        err = open_database(&d, o->tables[i]->database);
        if (!err)
            err = parse(&h, o->hyp[i]);
        for (size_t j = 0; j < o->n_refs[i] && !err; j++) {
            err = parse(&r, o->refs[i][j]);
            if (!err && !r.valid)
                err = no_query(o->refs[i][j]);
            if (!err)
                err = answers(&items[i], &d, o->tables[i], &h, &r, o->refs[i][j]);
            query_free(&r);
        }
        query_free(&h);
    }
    sqlite3_close(d.db);
    return err;
}
