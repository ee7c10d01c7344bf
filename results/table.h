// Tables of a summary as text, Markdown, CSV, LaTeX (booktabs, graphicx) or HTML.
#ifndef PB_RESULTS_TABLE_H
#define PB_RESULTS_TABLE_H

#include "results/serving.h"
#include "results/summary.h"
#include <stdio.h>

typedef enum pb_table_format { PB_TEXT, PB_MARKDOWN, PB_CSV, PB_LATEX, PB_HTML } pb_table_format;

// "text", "markdown", "csv", "latex" or "html"; another name is a usage error.
pb_err pb_table_format_parse(pb_table_format *out, const char *name);

// The comparison: one overview, then one table per task. CSV has one line per row and task, with
// plain numbers.
pb_err pb_table_scores(FILE *f, const pb_summary *s, pb_table_format format);
// The timed arms, one per line: steps, and whole generations.
pb_err pb_table_latency(FILE *f, const pb_summary *s, pb_table_format format);

// Served workloads, several tables; `names` are their files', or NULL. In CSV the tables follow
// each other behind empty lines.
pb_err pb_table_serving(FILE *f, pb_serving *const *runs, const char *const *names, size_t n,
                        pb_table_format format);
pb_err pb_table_served(FILE *f, const pb_summary *s, pb_table_format format);

// All of them as files: folder/NAME.txt, .md, .csv and .tex, where NAME is "overview", a task's,
// "latency", "efficiency", or "serving-latency" and so on.
pb_err pb_table_files(const char *folder, const pb_summary *s);

// A number of bytes, operations or parameters in few digits: 8.9 k, 1.20 M; "-" for NaN.
void pb_short_number(char out[32], double x);
// For LaTeX: its own characters escaped, signs it has commands for, and minus signs.
void pb_latex_text(FILE *f, const char *text);
void pb_html_text(FILE *f, const char *text); // with the characters of HTML escaped

#endif
