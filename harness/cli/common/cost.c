#include "cli/common/cost.h"

pb_err pb_cost_of(const pb_model *m, pb_adapter *a, size_t rows, size_t pos0, pb_cost *out)
{
    pb_counts with[PB_COMPONENTS], without[PB_COMPONENTS];
    pb_segment seg = {.n_rows = rows,
                      .pos0 = pos0,
                      .n_prompt = pos0 ? 0 : rows,
                      .tenant = 0,
                      .slot = pos0 ? 0 : -1};
    pb_batch b = {rows, 1, NULL, &seg};
    PB_TRY(pb_step_estimate(m, &a, 1, &b, false, with));
    seg.tenant = -1;
    PB_TRY(pb_step_estimate(m, NULL, 0, &b, false, without));
    *out = (pb_cost){0};
    for (int c = 0; c < PB_COMPONENTS; c++) {
        out->flops += (with[c].flops - without[c].flops) / (double)rows;
        out->bytes += (with[c].bytes - without[c].bytes) / (double)rows;
        out->regions += with[c].regions - without[c].regions;
    }
    return PB_OK;
}
