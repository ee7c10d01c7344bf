#include "results/report.h"

#include "core/clock.h"
#include "core/file.h"
#include "results/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char style[] =
    ":root{color-scheme:light dark;--text:#1b1f24;--soft:#59636e;--line:#d5dae0;--back:#fff;"
    "--band:#f3f5f7}\n"
    "@media(prefers-color-scheme:dark){:root{--text:#e3e7ec;--soft:#9aa5b1;--line:#3a424b;"
    "--back:#14181d;--band:#1e242b}}\n"
    "body{font:16px/1.5 system-ui,'DejaVu "
    "Sans',sans-serif;color:var(--text);background:var(--back);"
    "margin:0 auto;max-width:76rem;padding:1.5rem}\n"
    "h1{font-size:1.7rem;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.2rem 0 .6rem}"
    "h3{font-size:1rem;margin:1.2rem 0 .3rem}\n"
    "p,li{max-width:46rem}.note,figcaption{color:var(--soft);font-size:.86rem}\n"
    ".table{overflow-x:auto;margin:0 0 1.4rem}"
    "table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}\n"
    "caption{text-align:left;font-weight:600;padding:.2rem 0 .4rem}"
    "th,td{padding:.22rem .7rem;text-align:right;white-space:nowrap}\n"
    "th:first-child,td:first-child,.left td,.left th{text-align:left}"
    "thead th{border-bottom:2px solid var(--line);font-weight:600}\n"
    "tbody tr+tr td,tbody tr+tr th{border-top:1px solid var(--line)}tbody th{font-weight:400}"
    ".block th{background:var(--band);color:var(--soft);text-align:left}\n"
    "figure{margin:0 0 1.6rem}figure>div{background:#fff;padding:.6rem;border-radius:.4rem;"
    "overflow-x:auto;border:1px solid var(--line)}figure svg{display:block;max-width:100%;"
    "height:auto}\n"
    "code,pre{font-family:'DejaVu Sans Mono',monospace;font-size:.84rem}"
    "pre{background:var(--band);padding:.7rem;overflow-x:auto;border-radius:.4rem}"
    "td.wrap{white-space:normal;overflow-wrap:anywhere;min-width:14rem}\n"
    "@media print{body{max-width:none}.table,figure>div{overflow:visible}}\n";

// Copies an SVG into the page: without its XML declaration and document type, and with `prefix` in
// front of every id and of every reference to one, since ids are global in a page.
static void inline_svg(FILE *f, const char *svg, size_t n, const char *prefix)
{
    static const char *const marks[] = {" id=\"", " id='", "url(#", "href=\"#", "href='#"};
    const char *start = memmem(svg, n, "<svg", 4);
    if (!start)
        return;
    const char *end = svg + n;
    for (const char *s = start; s < end;) {
        size_t m = 0;
        for (size_t i = 0; i < sizeof marks / sizeof *marks && !m; i++) {
            size_t len = strlen(marks[i]);
            if ((size_t)(end - s) >= len && !memcmp(s, marks[i], len))
                m = len;
        }
        fwrite(s, 1, m ? m : 1, f);
        if (m)
            fputs(prefix, f);
        s += m ? m : 1;
    }
}

static pb_err figures(FILE *f, const pb_report_options *o)
{
    bool any = false;
    for (size_t i = 0; o->figures && o->drawn && pb_figures[i].name; i++)
        any |= o->drawn[i];
    if (!any)
        return PB_OK;
    fputs("<h2 id=\"figures\">Figures</h2>\n", f);
    for (size_t i = 0; pb_figures[i].name; i++) {
        if (!o->drawn[i])
            continue;
        char path[4096], prefix[32];
        pb_file svg;
        PB_TRY(pb_path(path, sizeof path, "%s/%s.svg", o->figures, pb_figures[i].name));
        PB_TRY(pb_file_map(&svg, path));
        snprintf(prefix, sizeof prefix, "figure%zu-", i + 1);
        fprintf(f, "<figure id=\"figure%zu\" role=\"img\" aria-label=\"%s\">\n<div>", i + 1,
                pb_figures[i].title);
        inline_svg(f, (const char *)svg.data, svg.size, prefix);
        fprintf(f, "</div>\n<figcaption><b>%s.</b> %s</figcaption>\n</figure>\n",
                pb_figures[i].title, pb_figures[i].caption);
        pb_file_unmap(&svg);
    }
    return PB_OK;
}

static void cell(FILE *f, const char *tag, const char *text)
{
    fprintf(f, "<%s>", tag);
    pb_html_text(f, text);
    fprintf(f, "</%.*s>", (int)strcspn(tag, " "), tag);
}

// A value of a configuration or environment, as short text. Paths lose their folders: a page that
// is passed on should not tell where it was made.
static char *value_text(const json_t *v)
{
    if (!v)
        return strdup("-");
    if (!json_is_string(v))
        return json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
    const char *s = json_string_value(v), *slash = strrchr(s, '/');
    return strdup(*s == '/' && slash[1] ? slash + 1 : s);
}

// Keys and the values that occur among the runs: what all share in one list, what differs in
// another.
typedef enum which { SHARED, DIFFERENT } which;

static pb_err values(FILE *f, const pb_records *r, bool env, which w, const char *caption)
{
    pb_err err = PB_OK;
    bool open = false;
    json_t *keys = json_object();
    if (!keys)
        return pb_fail(PB_MEMORY, NULL, "no memory for the report");
    for (size_t i = 0; i < r->n; i++)
        json_object_update_missing(keys, env ? r->v[i].env : r->v[i].config);
    const char *key;
    json_t *unused;
    json_object_foreach(keys, key, unused)
    {
        json_t *seen = json_object(); // value as text -> number of runs
        for (size_t i = 0; i < r->n && seen; i++) {
            char *text = value_text(json_object_get(env ? r->v[i].env : r->v[i].config, key));
            json_int_t n = text ? json_integer_value(json_object_get(seen, text)) : 0;
            if (text)
                json_object_set_new(seen, text, json_integer(n + 1));
            free(text);
        }
        size_t kinds = json_object_size(seen);
        if (kinds && (kinds == 1) == (w == SHARED)) {
            if (!open) {
                fputs("<div class=\"table\"><table class=\"left\"><caption>", f);
                pb_html_text(f, caption);
                fputs("</caption><tbody>\n", f);
                open = true;
            }
            fputs("<tr>", f);
            cell(f, "th scope=\"row\"", key);
            fputs("<td class=\"wrap\">", f);
            const char *text;
            json_t *count;
            size_t shown = 0;
            json_object_foreach(seen, text, count)
            {
                if (shown == 16) {
                    fprintf(f, ", and %zu more", kinds - shown);
                    break;
                }
                fputs(shown ? ", " : "", f);
                pb_html_text(f, text);
                if (kinds > 1)
                    fprintf(f, " <span class=\"note\">(%" JSON_INTEGER_FORMAT ")</span>",
                            json_integer_value(count));
                shown++;
            }
            fputs("</td></tr>\n", f);
        }
        json_decref(seen);
    }
    if (open)
        fputs("</tbody></table></div>\n", f);
    json_decref(keys);
    return err;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void runs(FILE *f, const pb_records *r)
{
    fputs("<h2 id=\"runs\">Runs</h2>\n<div class=\"table\"><table class=\"left\"><thead><tr>", f);
    static const char *const head[] = {"file",    "status",  "task", "method",        "seed",
                                       "seconds", "created", "run",  "configuration", "message"};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        cell(f, "th scope=\"col\"", head[i]);
    fputs("</tr></thead><tbody>\n", f);
    for (size_t i = 0; i < r->n; i++) {
        const pb_record *v = &r->v[i];
        char seed[32], seconds[32], hash[16];
        snprintf(seed, sizeof seed, v->seed >= 0 ? "%lld" : "-", (long long)v->seed);
        snprintf(seconds, sizeof seconds, isfinite(v->seconds) ? "%.1f" : "-", v->seconds);
        snprintf(hash, sizeof hash, "%.12s", v->config_sha256);
        fputs("<tr>", f);
        const char *const texts[] = {file_name(v->path), v->status, *v->task ? v->task : v->kind,
                                     v->method,          seed,      seconds,
                                     v->created,         v->run_id, hash};
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
            cell(f, "td", texts[k]);
        cell(f, "td class=\"wrap\"", v->message);
        fputs("</tr>\n", f);
    }
    fputs("</tbody></table></div>\n", f);
}

static void head(FILE *f, const pb_records *r, const char *title)
{
    static const char *const names[] = {"complete", "diverged", "failed", "interrupted"};
    char now[32];
    pb_timestamp(now);
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          f);
    pb_html_text(f, title);
    fprintf(f, "</title>\n<style>\n%s</style></head>\n<body>\n<h1>", style);
    pb_html_text(f, title);
    fprintf(f, "</h1>\n<p class=\"note\">Made %s from %zu run%s:", now, r->n, r->n == 1 ? "" : "s");
    bool first = true;
    for (size_t s = 0; s < 4; s++) {
        size_t n = 0;
        for (size_t i = 0; i < r->n; i++)
            n += pb_record_is(&r->v[i], names[s]);
        if (!n)
            continue;
        fprintf(f, "%s %zu %s", first ? "" : ",", n, names[s]);
        first = false;
    }
    fputs(".</p>\n", f);
}

static const char reading[] =
    "<h2 id=\"reading\">How to read this</h2>\n<ul>\n"
    "<li>All methods train the same frozen backbone on the same examples in the same order. Rows "
    "of "
    "one budget block were given the same number of trainable parameters; methods without a size "
    "knob cannot be matched and stand apart.</li>\n"
    "<li>A seed is one whole training. Intervals in brackets are 95&nbsp;% bootstrap intervals. "
    "Differences are taken within a seed, against the baseline, and the interval is of that "
    "difference.</li>\n"
    "<li><b>~</b> marks a difference whose interval covers 0: the data do not say which method is "
    "better. No number is set in bold.</li>\n"
    "<li>p values come from a paired t test over seeds, corrected for the number of comparisons "
    "(Holm). With few seeds the test has little power, and it can disagree with the interval, "
    "which "
    "also uses the test items.</li>\n"
    "<li>Diverged, failed and unfinished runs are counted beside the means, never averaged "
    "in.</li>\n"
    "<li>Times per token are medians on one machine; compare arms of one table only, and mistrust "
    "differences smaller than the noise column.</li>\n</ul>\n";

static void commands(FILE *f, const pb_records *r, const pb_report_options *o)
{
    fputs("<h2 id=\"commands\">Commands</h2>\n<pre>", f);
    for (size_t i = 0; i < r->n; i++) { // runs may record theirs in the environment
        const char *c = json_string_value(json_object_get(r->v[i].env, "command"));
        bool seen = !c;
        for (size_t k = 0; k < i && !seen; k++) {
            const char *d = json_string_value(json_object_get(r->v[k].env, "command"));
            seen = d && !strcmp(c, d);
        }
        if (!seen) {
            pb_html_text(f, c);
            fputc('\n', f);
        }
    }
    if (o->command) {
        pb_html_text(f, o->command);
        fputc('\n', f);
    }
    fputs("</pre>\n<p class=\"note\">Every run file holds its whole configuration: "
          "<code>h5dump -g /config FILE.h5</code>.</p>\n",
          f);
}

static pb_err page(FILE *f, const pb_summary *s, const pb_records *r, const pb_report_options *o)
{
    head(f, r, o->title ? o->title : "Pedrobench report");
    fputs(reading, f);
    if (s->n_rows) {
        fputs("<h2 id=\"scores\">Scores</h2>\n", f);
        PB_TRY(pb_table_scores(f, s, PB_HTML));
    }
    if (s->n_arms) {
        fputs("<h2 id=\"latency\">Latency</h2>\n", f);
        PB_TRY(pb_table_latency(f, s, PB_HTML));
    }
    if (s->n_served) {
        fputs("<h2 id=\"serving\">Served workloads</h2>\n", f);
        PB_TRY(pb_table_served(f, s, PB_HTML));
    }
    PB_TRY(figures(f, o));
    fputs("<h2 id=\"provenance\">Provenance</h2>\n", f);
    PB_TRY(values(f, r, true, SHARED, "Environment of all runs"));
    PB_TRY(values(f, r, true, DIFFERENT, "Environment: what differs (number of runs)"));
    PB_TRY(values(f, r, false, SHARED, "Configuration of all runs"));
    PB_TRY(values(f, r, false, DIFFERENT, "Configuration: what differs (number of runs)"));
    commands(f, r, o);
    runs(f, r);
    fputs("</body></html>\n", f);
    return PB_OK;
}

pb_err pb_report_write(const char *path, const pb_summary *s, const pb_records *records,
                       const pb_report_options *options)
{
    pb_writer w;
    PB_TRY(pb_writer_open(&w, path));
    pb_err err = page(w.stream, s, records, options);
    if (err) {
        pb_writer_abandon(&w);
        return err;
    }
    return pb_writer_commit(&w);
}
