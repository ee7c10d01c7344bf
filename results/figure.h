// Figures: each is a table of numbers (NAME.dat, tab-separated, with a header) drawn by gnuplot
// with the script NAME.gp into NAME.svg, NAME.png, or NAME.tex and NAME.pdf (for LaTeX, which sets
// the text: \input the one, with \graphicspath to the other).
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

enum { PB_FIGURE_SVG, PB_FIGURE_PNG, PB_FIGURE_TEX, PB_TERMINALS };
enum { PB_FIGURE_DEFAULT = 1 << PB_FIGURE_SVG | 1 << PB_FIGURE_PNG };
extern const char *const pb_figure_terminal[PB_TERMINALS]; // "svg", "png", "tex"
// "svg,tex" -> their bits
pb_err pb_figure_terminals(unsigned *out, const char *list);

typedef struct pb_figure_options {
    const char *folder;  // of the outputs, made when missing
    const char *scripts; // from pb_figure_scripts
    const char *only;    // one figure's name, or NULL for all that the data allow
    unsigned terminals;  // bits
} pb_figure_options;

// drawn[i] (may be NULL; as long as pb_figures) tells which were drawn. A figure asked for by name
// whose data are missing is an error, and so is no figure at all.
pb_err pb_figures_draw(const pb_summary *s, const pb_figure_options *options, bool *drawn);

#endif
