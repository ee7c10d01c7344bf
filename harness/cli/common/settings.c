#include "cli/common/settings.h"

#include "cli/common/common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pb_set(struct argp_state *state, json_t *config, const char *key, json_t *v)
{
    if (!v || json_object_set_new(config, key, v))
        argp_error(state, "--%s is not valid text", key);
}

void pb_set_size(struct argp_state *state, json_t *config, const char *key, const char *option,
                 const char *text)
{
    size_t n;
    if (pb_parse_size(text, option, &n))
        pb_usage_error(state);
    pb_set(state, config, key, json_integer((json_int_t)n));
}

void pb_set_real(struct argp_state *state, json_t *config, const char *key, const char *option,
                 const char *text, double min, double max)
{
    double v;
    if (pb_parse_real(text, option, min, max, &v))
        pb_usage_error(state);
    pb_set(state, config, key, json_real(v));
}

void pb_set_list(struct argp_state *state, json_t *config, const char *key, const char *option,
                 const char *text, bool numbers)
{
    json_t *list = json_array();
    for (const char *s = text;; s++) {
        char word[256];
        size_t len = strcspn(s, ","), n = 0;
        snprintf(word, sizeof word, "%.*s", (int)len, s);
        if (!len || len >= sizeof word)
            argp_error(state, "%s is \"%s\"; separate with commas", option, text);
        if (numbers && pb_parse_size(word, option, &n))
            pb_usage_error(state);
        json_array_append_new(list, numbers ? json_integer((json_int_t)n) : json_string(word));
        s += len;
        if (!*s)
            break;
    }
    pb_set(state, config, key, list);
}

void pb_set_model(struct argp_state *state, json_t *config, const char *text, bool random)
{
    char model[256];
    if (json_object_get(config, "model"))
        argp_error(state, "give one of --model and --random");
    snprintf(model, sizeof model, "random:%s", text);
    pb_set(state, config, "model", json_string(random ? model : text));
}

pb_err pb_parse_limits(double *ms, const char *const *names, size_t n, const char *text)
{
    for (const char *s = text;; s++) {
        size_t name = strcspn(s, "="), k = 0;
        while (k < n && (strlen(names[k]) != name || strncmp(s, names[k], name) != 0))
            k++;
        char *end = NULL;
        double v = k < n && s[name] ? strtod(s + name + 1, &end) : 0;
        size_t unit = v > 0 && v < 1e9 ? strcspn(end, ",") : 0;
        bool thousandths = unit == 2 && !strncmp(end, "ms", 2);
        if (!thousandths && (unit != 1 || *end != 's'))
            return pb_fail(PB_USAGE, "for example ttft=200ms,tpot=0.05s", "--slo is \"%s\"", text);
        ms[k] = thousandths ? v : 1e3 * v;
        s = end + unit;
        if (!*s)
            return PB_OK;
    }
}
