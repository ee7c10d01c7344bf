// Options of commands whose configuration is a JSON object, and what else several of them parse. An
// argument that cannot be meant ends the program with exit code 2, as argp's own errors do.
#ifndef PB_CLI_SETTINGS_H
#define PB_CLI_SETTINGS_H

#include "core/error.h"
#include "core/json.h"

#include <argp.h>
#include <stdbool.h>

// Takes v over. `option`, here and below: as on the command line, for messages.
void pb_set(struct argp_state *state, json_t *config, const char *key, json_t *v);
void pb_set_size(struct argp_state *state, json_t *config, const char *key, const char *option,
                 const char *text);
void pb_set_real(struct argp_state *state, json_t *config, const char *key, const char *option,
                 const char *text, double min, double max);
// Words between commas, or sizes.
void pb_set_list(struct argp_state *state, json_t *config, const char *key, const char *option,
                 const char *text, bool numbers);

// --model PATH or --random GEOMETRY, of which there can be one.
void pb_set_model(struct argp_state *state, json_t *config, const char *text, bool random);

// "ttft=200ms,tpot=0.05s": limits in ms of the n times that have names; the others stay as they
// are.
pb_err pb_parse_limits(double *ms, const char *const *names, size_t n, const char *text);

#endif
