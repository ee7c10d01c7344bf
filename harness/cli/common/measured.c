#include "cli/common/measured.h"

#include "core/threads.h"
#include "tensor/kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>

json_t *pb_measured_env(const pb_model *m)
{
    // How threads wait and where they run decides what a parallel region costs.
    static const char *const variables[] = {"OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES",
                                            "GOMP_SPINCOUNT", "GOMP_CPU_AFFINITY"};
    json_t *env = json_pack("{s:s, s:b, s:s, s:I}", "kernels", pb_kernels_get()->isa,
                            "threads_bound", pb_threads_bound(), "model_sha256", m->sha256,
                            "model_params", (json_int_t)pb_config_params(&m->config));
    for (size_t i = 0; env && i < sizeof variables / sizeof *variables; i++)
        if (getenv(variables[i]))
            json_object_set_new(env, variables[i], json_string(getenv(variables[i])));
    return env;
}

pb_err pb_measured_end(pb_run *run, pb_err err)
{
    char text[1024], hint[512];
    pb_run_status status = !err                    ? PB_RUN_COMPLETE
                           : err == PB_INTERRUPTED ? PB_RUN_INTERRUPTED
                                                   : PB_RUN_FAILED;
    snprintf(text, sizeof text, "%s", err ? pb_error_message() : "");
    snprintf(hint, sizeof hint, "%s", err ? pb_error_hint() : "");
    pb_err late = pb_run_finish(run, status, text);
    if (late)
        pb_run_abandon(run);
    if (late && err)
        return pb_context(late, "%s; then", text);
    return err ? pb_fail(err, *hint ? hint : NULL, "%s", text) : late;
}
