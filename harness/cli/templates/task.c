// NAME: is the first number larger than the second?
//
// TODO: what the task is and where its data comes from. Written by `pedrobench new-task`. Raise
// .version when the text that the model sees changes.
#include "tasks/task.h"

static pb_err load(pb_dataset *d, const pb_task *task, const pb_task_args *args)
{
    static const char *const answers[] = {"no", "yes"};
    pb_rng r = pb_rng_make(args->seed, PB_STREAM_TASK, 77);
    // Prompts of different splits must differ: here, every pair of numbers is used once.
    enum { MOST = 100 };
    size_t order[MOST * MOST], next = 0;
    for (size_t i = 0; i < MOST * MOST; i++)
        order[i] = i;
    pb_rng_shuffle(&r, order, MOST * MOST);
    for (int s = 0; s < PB_N_SPLITS; s++) {
        size_t n = args->limit[s] ? args->limit[s] : task->sizes[s];
        for (size_t i = 0; i < n && next < MOST * MOST; i++, next++) {
            size_t a = order[next] / MOST, b = order[next] % MOST;
            size_t right = a > b;
            pb_example e = {.prompt = pb_dataset_text(d, "%zu larger than %zu? ", a, b),
                            .response = answers[right],
                            .candidates = answers,
                            .n_candidates = 2,
                            .label = right};
            PB_TRY(pb_dataset_add(d, (pb_split)s, &e));
        }
    }
    return PB_OK;
}

PB_TASK(NAME) = {
    .name = "NAME",
    .doc = "TODO: one line",
    .source = "generated",
    .licence = "public domain",
    .version = "1",
    .kind = PB_RANK,
    .metric = "accuracy",
    .sizes = {2000, 200, 400},
    .load = load,
};
