// `--emit`: the runs as a script for GNU parallel, make or Slurm, one job per run, a stage after
// the other. A job that fails does not hold up others: the script ends with `--status`, which tells
// whether all is complete.
#include "cli/common/common.h"
#include "cli/sweep/sweep.h"
#include "core/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// 'text', with quotes inside as the shell wants them (and dollars as make does).
static void quote(FILE *f, const char *text, bool make)
{
    fputc('\'', f);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\'", f);
        if (make && *text == '$')
            fputc('$', f);
        fputc(*text, f);
    }
    fputc('\'', f);
}

static void option(FILE *f, const char *name, const char *value, bool make)
{
    if (!value)
        return;
    fprintf(f, " %s ", name);
    quote(f, value, make);
}

// The folder it is to be called in, and the command up to the run.
static pb_err command(FILE *f, const pb_sweep *s, bool make)
{
    char self[4096], timeout[32], *folder = getcwd(NULL, 0);
    const char *plugins = getenv("PB_PLUGINS");
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || !folder) {
        free(folder);
        return pb_fail(PB_IO, NULL, "cannot tell where this program or folder is");
    }
    self[n] = 0;
    fputs("cd ", f);
    quote(f, folder, make);
    fputs(" && ", f);
    if (plugins) {
        fputs("PB_PLUGINS=", f);
        quote(f, plugins, make);
        fputc(' ', f);
    }
    quote(f, self, make);
    fputs(" sweep ", f);
    quote(f, s->file, make);
    option(f, "--out", s->out, make);
    option(f, "--data", s->data, make);
    option(f, "--model", s->model, make);
    snprintf(timeout, sizeof timeout, "%.17g", s->timeout);
    option(f, "--timeout", s->timeout > 0 ? timeout : NULL, make);
    if (s->retry)
        fputs(" --retry", f);
    if (s->quiet)
        fputs(" --quiet", f);
    free(folder);
    return PB_OK;
}

static pb_err verdict(FILE *f, const pb_sweep *s, bool make)
{
    PB_TRY(command(f, s, make));
    fputs(" --status", f);
    if (s->shards > 1)
        fprintf(f, " --shard %zu/%zu", s->shard + 1, s->shards);
    fputc('\n', f);
    return PB_OK;
}

static bool belongs(const pb_sweep *s, size_t i, int stage)
{
    return s->plan.run[i].stage == (pb_stage)stage && pb_sweep_in_shard(s, &s->plan.run[i]);
}

static size_t count(const pb_sweep *s, int stage)
{
    size_t n = 0;
    for (size_t i = 0; i < s->plan.n_runs; i++)
        n += belongs(s, i, stage);
    return n;
}

// ---------------------------------------------------------------- GNU parallel

static pb_err emit_parallel(FILE *f, const pb_sweep *s)
{
    fputs(
        "#!/usr/bin/env bash\n"
        "# Jobs at a time: JOBS (default 1). Arguments go to parallel, e.g. --sshlogin or --eta.\n"
        "JOBS=${JOBS:-1}\n",
        f);
    for (int stage = 0; stage < PB_N_STAGES; stage++) {
        if (!count(s, stage))
            continue;
        fprintf(f, "\n# %s\nparallel --will-cite --line-buffer -j %s \"$@\" <<'END'\n",
                pb_stage_name((pb_stage)stage), stage == PB_STAGE_LATENCY ? "1" : "\"$JOBS\"");
        for (size_t i = 0; i < s->plan.n_runs; i++)
            if (belongs(s, i, stage)) {
                PB_TRY(command(f, s, false));
                fprintf(f, " --only %s\n", s->plan.run[i].id);
            }
        fputs("END\n", f);
    }
    fputc('\n', f);
    return verdict(f, s, false);
}

// ---------------------------------------------------------------- make

// What a run waits for, as make's targets.
static void print_needs(FILE *f, const pb_sweep *s, const pb_sweep_run *r)
{
    const pb_sweep_plan *p = &s->plan;
    for (size_t i = 0; i < p->n_runs; i++) {
        const pb_sweep_run *e = &p->run[i];
        bool needed = e->stage == PB_STAGE_BACKBONE || r->stage == PB_STAGE_LATENCY ||
                      (r->choice != PB_NO_CHOICE && r->choice == e->choice);
        bool alone = r->stage == PB_STAGE_LATENCY && e->stage == r->stage && e < r;
        if (((e->stage < r->stage && needed) || alone) && pb_sweep_in_shard(s, e))
            fprintf(f, " %s", e->id);
    }
}

static pb_err emit_make(FILE *f, const pb_sweep *s)
{
    const pb_sweep_plan *p = &s->plan;
    fputs("# make -f THIS -j JOBS\nrun := ", f);
    PB_TRY(command(f, s, true));
    fputs("\nruns :=", f);
    for (size_t i = 0; i < p->n_runs; i++)
        if (pb_sweep_in_shard(s, &p->run[i]))
            fprintf(f, " \\\n    %s", p->run[i].id);
    fputs("\n\n.PHONY: all $(runs)\nall: $(runs)\n\t", f);
    PB_TRY(verdict(f, s, true));
    fputs("\n# A failed run is shown at the end; the others go on.\n"
          "$(runs):\n\t-$(run) --only $@\n\n",
          f);
    for (size_t i = 0; i < p->n_runs; i++) {
        if (!pb_sweep_in_shard(s, &p->run[i]) || p->run[i].stage == PB_STAGE_BACKBONE)
            continue;
        fprintf(f, "%s:", p->run[i].id);
        print_needs(f, s, &p->run[i]);
        fputc('\n', f);
    }
    return PB_OK;
}

// ---------------------------------------------------------------- Slurm

enum { ARRAY = 1000 }; // Slurm's usual limit (MaxArraySize) is 1001

static pb_err emit_array(FILE *f, const pb_sweep *s, int stage, size_t from, size_t to)
{
    size_t at = 0;
    fprintf(f,
            "\nlast+=:$(sbatch --parsable --job-name=%s --output=\"$logs/%%A-%%a.log\" \\\n"
            "    --array=0-%zu%s ${after:+--dependency=afterany$after} \"$@\" <<'END'\n"
            "#!/usr/bin/env bash\nids=(",
            pb_stage_name((pb_stage)stage), to - from - 1,
            stage == PB_STAGE_LATENCY ? " --exclusive" : "");
    for (size_t i = 0; i < s->plan.n_runs; i++)
        if (belongs(s, i, stage)) {
            if (at >= from && at < to)
                fprintf(f, "\n    %s", s->plan.run[i].id);
            at++;
        }
    fputs(")\n", f);
    PB_TRY(command(f, s, false));
    fputs(" --only \"${ids[SLURM_ARRAY_TASK_ID]}\"\nEND\n)\n", f);
    return PB_OK;
}

static pb_err emit_slurm(FILE *f, const pb_sweep *s)
{
    fputs("#!/usr/bin/env bash\n"
          "# Submits a job array for each stage; prints the numbers of the last jobs. Arguments go "
          "to\n# sbatch, e.g. --cpus-per-task=8 --time=2:00:00.\nset -euo pipefail\n"
          "logs=",
          f);
    quote(f, s->out, false);
    fputs("/slurm\nmkdir -p \"$logs\"\nafter= last=\n", f);
    for (int stage = 0; stage < PB_N_STAGES; stage++) {
        size_t n = count(s, stage);
        for (size_t from = 0; from < n; from += ARRAY)
            PB_TRY(emit_array(f, s, stage, from, from + ARRAY < n ? from + ARRAY : n));
        if (n)
            fputs("after=$last last=\n", f);
    }
    fputs("\n# What became of all: ", f);
    PB_TRY(verdict(f, s, false));
    fputs("echo \"${after#:}\"\n", f);
    return PB_OK;
}

pb_err pb_sweep_emit(const pb_sweep *s, const char *format, const char *path)
{
    static const struct {
        const char *name;
        pb_err (*emit)(FILE *f, const pb_sweep *s);
    } known[] = {{"parallel", emit_parallel}, {"slurm", emit_slurm}, {"make", emit_make}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(format, known[i].name) != 0)
            continue;
        if (!path)
            return known[i].emit(stdout, s);
        pb_writer w;
        PB_TRY(pb_writer_open(&w, path));
        pb_err err = known[i].emit(w.stream, s);
        if (err)
            pb_writer_abandon(&w);
        return err ? err : pb_writer_commit(&w);
    }
    return pb_fail(PB_USAGE, "parallel, slurm or make", "unknown list of jobs \"%s\"", format);
}
