// The report: one HTML page that holds everything, with no scripts and no links to other files.
#ifndef PB_RESULTS_REPORT_H
#define PB_RESULTS_REPORT_H

#include "results/figure.h"

typedef struct pb_report_options {
    const char *title;   // NULL: "Pedrobench report"
    const char *figures; // folder with NAME.svg of the drawn figures, NULL for none
    const bool *drawn;   // as filled by pb_figures_draw
    const char *command; // the command line that makes this report, NULL when unknown
} pb_report_options;

pb_err pb_report_write(const char *path, const pb_summary *s, const pb_records *records,
                       const pb_report_options *options);

#endif
