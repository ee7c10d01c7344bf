// Figures: each is a table of numbers (NAME.dat, tab-separated, with a header) drawn by gnuplot
// with the script NAME.gp into NAME.svg and NAME.png.
#ifndef PB_RESULTS_FIGURE_H
#define PB_RESULTS_FIGURE_H

#include "results/summary.h"

typedef struct pb_figure {
    const char *name, *title, *caption;
} pb_figure;

extern const pb_figure pb_figures[]; // ends with name = NULL

// Where the scripts are: PB_PLOTS of the environment, else source_dir/plots if it exists
// (source_dir may be NULL), else ../share/pedrobench/plots seen from the running program.
pb_err pb_figure_scripts(char *out, size_t size, const char *source_dir);

typedef struct pb_figure_options {
    const char *folder;  // of the outputs, made when missing
    const char *scripts; // from pb_figure_scripts
    const char *only;    // one figure's name, or NULL for all that the data allow
    bool no_png;
} pb_figure_options;

// drawn[i] (may be NULL; as long as pb_figures) tells which were drawn. A figure asked for by name
// whose data are missing is an error, and so is no figure at all.
pb_err pb_figures_draw(const pb_summary *s, const pb_figure_options *options, bool *drawn);

#endif
