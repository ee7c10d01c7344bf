// Adapter folders as Hugging Face PEFT writes them: published sizes, what is selected, what is
// refused, and that what is saved comes back.
#include "model/peft.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "tiny.h"

#include <sys/stat.h>

// Llama-3.2-3B.
static const pb_config llama = {.vocab = 128256,
                                .width = 3072,
                                .ffn = 8192,
                                .layers = 28,
                                .heads = 24,
                                .kv_heads = 8,
                                .head_dim = 128,
                                .context = 131072,
                                .norm_eps = 1e-5,
                                .rope_theta = 500000,
                                .tied = true,
                                .bos = -1};

static pb_adapter *make(const char *method, const pb_config *c, const char *options)
{
    char text[400], *save = NULL;
    const pb_method *m = pb_method_find(method);
    void *o;
    pb_adapter *a;
    OK(pb_options_new(&o, m));
    snprintf(text, sizeof text, "%s", options);
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        char *value = strchr(w, '=');
        *value++ = 0;
        OK(pb_options_set(m, o, w, value));
    }
    OK(pb_adapter_new(&a, m, o, c, false));
    OK(pb_adapter_init(a, NULL, 1, 0, NULL, NULL, NULL));
    free(o);
    return a;
}

static void save(const pb_adapter *a, char folder[400])
{
    snprintf(folder, 400, "%s/adapter", tiny_folder);
    OK(pb_adapter_save(a, folder));
}

// Parameters and bytes of adapter_model.safetensors that PEFT's own comparison published.
static void published(void **state)
{
    static const struct {
        const char *method, *options;
        size_t parameters, bytes;
    } golden[] = {
        {"lora", "rank=32 targets=q,v", 9175040, 36715216},
        {"lora", "rank=10 targets=gate,up,down", 9461760, 37868984},
        {"ia3", "targets=k,v,down", 286720, 1157064},
        {"ia3", "targets=q,k,v,o,gate,up,down inputs=gate,up,down", 630784, 2546928},
        {"prefix", "length=200 init=zero", 11468800, 45875328},
        {"prefix", "length=50 init=zero", 2867200, 11468928},
    };
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        char folder[400], file[440];
        struct stat st;
        pb_adapter *a = make(golden[i].method, &llama, golden[i].options);
        assert_int_equal(a->layout.trainable, golden[i].parameters);
        save(a, folder);
        snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
        assert_int_equal(stat(file, &st), 0);
        assert_int_equal(st.st_size, golden[i].bytes);
        pb_adapter_free(a);
    }
}

// A variant has its own defaults, and its folders are those of the method it is a variant of.
static void variants(void **state)
{
    char folder[400];
    (void)state;
    pb_adapter *a = make("loraplus", &pb_tinies[0].config, ""), *b;
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        assert_true(s->lr_scale == (strstr(s->name, "lora_B") ? 16 : 1));
    }
    save(a, folder);
    OK(pb_adapter_load(&b, folder, &pb_tinies[0].config, NULL));
    assert_string_equal(b->method->name, "lora");
    pb_adapter_free(a);
    pb_adapter_free(b);
}

// Methods of one type are told apart by a key, which comes back.
static void told_apart(void **state)
{
    static const char *const names[] = {"lora", "dora"};
    char folder[400];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pb_adapter *a = make(names[i], &pb_tinies[0].config, "targets=q"), *b;
        save(a, folder);
        OK(pb_adapter_load(&b, folder, &pb_tinies[0].config, NULL));
        assert_string_equal(b->method->name, names[i]);
        pb_adapter_free(a);
        pb_adapter_free(b);
    }
}

// What AdaLoRA pruned is not in its files: fewer rows, or no matrix at all, and the same function.
static void pruned(void **state)
{
    static const int left[] = {3, 0, 5, 1}; // of rank 5: q and v of the two layers
    const pb_config *c = &pb_tinies[0].config;
    char folder[400], path[440];
    json_t *j;
    (void)state;
    pb_adapter *a = make("adalora", c, "targets=q,v init_r=5 target_r=2"), *b;
    pb_rng r = pb_rng_make(4, PB_STREAM_TEST, 0);
    for (size_t i = 0, n = 0; i < a->layout.n; i++) {
        const pb_spec *s = &a->layout.spec[i];
        real *v = a->params.v + s->offset;
        fill(v, s->rows * s->cols, 0, 1, &r);
        for (int k = 0; strstr(s->name, "lora_E") && k < 5; k++)
            v[(2 * k + (int)n) % 5] *= k < left[n];
        n += strstr(s->name, "lora_E") != NULL;
    }
    save(a, folder);
    OK(pb_adapter_load(&b, folder, c, NULL));
    assert_int_equal(b->layout.n, 3 * 3);
    for (size_t i = 0; i < 4; i++) {
        size_t layer = i / 2;
        pb_linear_id l = i % 2 ? PB_LIN_V : PB_LIN_Q;
        size_t out = pb_linear_out(c, l), in = pb_linear_in(c, l);
        real *w[2] = {calloc(out * in, sizeof(real)), calloc(out * in, sizeof(real))};
        for (int k = 0; k < 2; k++)
            OK(a->method->merge(&(k ? b : a)->params,
                                &(pb_merge_args){c, layer, l, w[k], NULL, out, in}));
        for (size_t k = 0; k < out * in; k++)
            assert_true(fabs((double)w[0][k] - (double)w[1][k]) <= 1e-5 * fabs((double)w[0][k]));
        free(w[0]), free(w[1]);
    }
    for (size_t i = 0, n = 0; i < b->layout.n; i++, n += i % 3 == 0) {
        n += left[n] == 0;
        const pb_spec *x = &b->layout.spec[i];
        assert_int_equal(strstr(x->name, "lora_E") ? x->cols : x->rows, left[n]);
    }
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    OK(pb_json_load(&j, path));
    const json_t *pattern = json_object_get(j, "rank_pattern");
    assert_int_equal(json_object_size(pattern), 4);
    const json_t *mask = json_object_get(pattern, "model.layers.0.self_attn.v_proj.lora_E");
    assert_int_equal(json_array_size(mask), 5);
    json_decref(j);
    pb_adapter_free(a);
    pb_adapter_free(b);
}

// ---------------------------------------------------------------- reading configurations

static const pb_config *const base = &pb_tinies[0].config; // 2 layers

#define LORA "\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8"
#define QV   "\"target_modules\":[\"q_proj\",\"v_proj\"]"
#define IA3                                                                                        \
    "\"peft_type\":\"IA3\",\"target_modules\":[\"k_proj\",\"down_proj\"],"                         \
    "\"feedforward_modules\":[\"down_proj\"]"
#define ADALORA "\"peft_type\":\"ADALORA\",\"init_r\":9,\"lora_alpha\":8"
#define PREFIX  "\"peft_type\":\"PREFIX_TUNING\",\"num_virtual_tokens\":3"

static pb_err read_text(const char *text, const char *sha256, const pb_method **m, void **options)
{
    json_t *j;
    OK(pb_json_parse(&j, text, strlen(text), "test"));
    pb_err err = pb_peft_read(m, options, j, base, sha256);
    json_decref(j);
    return err;
}

static void selected(void **state)
{
    static const struct {
        const char *text, *option, *want;
    } cases[] = {
        {"{" LORA "," QV "}", "targets", "q,v"},
        {"{" LORA "," QV "}", "ranks", ""},
        {"{" LORA ",\"target_modules\":\"all-linear\"}", "targets", "q,k,v,o,gate,up,down"},
        {"{" LORA
         ",\"target_modules\":\"all-linear\",\"exclude_modules\":[\"mlp.up_proj\",\"k_proj\"]"
         "}",
         "targets", "q,v,o,gate,down"},
        {"{" LORA ",\"target_modules\":\"all-linear\",\"exclude_modules\":\".*layers\\\\.0.*\"}",
         "targets", "q@1,k@1,v@1,o@1,gate@1,up@1,down@1"},
        {"{" LORA ",\"target_modules\":\".*\\\\.1\\\\.(self_attn\\\\.o|mlp\\\\.up)_proj\"}",
         "targets", "o@1,up@1"},
        // A regular expression matches the whole name.
        {"{" LORA ",\"target_modules\":\".*self_attn.[qk]_pro(j|k)\"}", "targets", "q,k"},
        {"{" LORA "," QV ",\"layers_to_transform\":1}", "targets", "q@1,v@1"},
        {"{" LORA "," QV ",\"layers_to_transform\":[0],\"layers_pattern\":\"layers\"}", "targets",
         "q@0,v@0"},
        {"{" LORA "," QV ",\"layers_to_transform\":[]}", "targets", "q,v"},
        // A module named in full is not filtered by layers.
        {"{" LORA ",\"target_modules\":[\"o_proj\",\"model.layers.0.mlp.up_proj\"],"
         "\"layers_to_transform\":[1]}",
         "targets", "o@1,up@0"},
        {"{" LORA "," QV ",\"rank_pattern\":{\"q_proj\":2}}", "ranks", "q:2"},
        // The first pattern counts; a pattern ends the name.
        {"{" LORA "," QV
         ",\"rank_pattern\":{\"layers.1.self_attn.q_proj\":7,\"q_proj\":2,\"q\":9}}",
         "ranks", "q@0:2,q@1:7"},
        {"{" LORA "," QV ",\"rank_pattern\":{\"self_attn.(q|v)_proj\":3}}", "ranks", "q:3,v:3"},
        {"{" LORA "," QV ",\"rank_pattern\":{\"self_attn.q\":9,\"attn.v_proj\":5}}", "ranks", ""},
        {"{" LORA "," QV ",\"alpha_pattern\":{\"v_proj\":0.5}}", "alphas", "v:0.5"},
        {"{" LORA "," QV "}", "rank", "4"},
        {"{" LORA "," QV "}", "alpha", "8"},
        {"{" LORA "," QV ",\"use_rslora\":true}", "rslora", "true"},
        {"{" LORA "," QV ",\"init_lora_weights\":\"gaussian\",\"use_dora\":false,\"bias\":\"none\","
         "\"loftq_config\":{},\"modules_to_save\":null,\"megatron_core\":\"megatron.core\"}",
         "targets", "q,v"},
        {"{" IA3 "}", "targets", "k,down"},
        {"{" IA3 "}", "inputs", "down"},
        {"{\"peft_type\":\"IA3\",\"target_modules\":\".*_proj\",\"feedforward_modules\":[]}",
         "inputs", ""},
        {"{\"peft_type\":\"IA3\",\"target_modules\":\".*_proj\","
         "\"feedforward_modules\":\".*mlp.*\"}",
         "inputs", "gate,up,down"},
        {"{" PREFIX ",\"token_dim\":12,\"num_layers\":2,\"num_attention_heads\":2}", "length", "3"},
        {"{" PREFIX ",\"prefix_projection\":true,\"encoder_hidden_size\":77}", "mlp", "0"},
        {"{" PREFIX ",\"pedrobench\":{\"options\":{\"init\":\"zero\"}}}", "init", "zero"},
        {"{" ADALORA "," QV ",\"rank_pattern\":{\"model.layers.1.self_attn.v_proj.lora_E\":"
         "[true,false,true],\"model.layers.0.self_attn.v_proj.lora_E\":[false,false,false]}}",
         "ranks", "v@0:0,v@1:2"},
        {"{" LORA "," QV ",\"lora_dropout\":0.25,\"pedrobench\":{\"options\":{\"alpha\":1}}}",
         "alpha", "8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const pb_method *m;
        void *o;
        OK(read_text(cases[i].text, NULL, &m, &o));
        json_t *all = pb_options_to_json(m, o);
        const json_t *v = json_object_get(all, cases[i].option);
        char *got = json_is_string(v) ? strdup(json_string_value(v))
                                      : json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        if (json_is_real(v)) // 8.0
            got[strcspn(got, ".")] = 0;
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("%s: %s is \"%s\", not \"%s\"", cases[i].text, cases[i].option, got,
                     cases[i].want);
        free(got);
        free(o);
        json_decref(all);
    }
}

static void refused(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[]", "JSON object"},
        {"{}", "\"peft_type\" is missing"},
        {"{\"peft_type\":\"BOFT\"}", "\"BOFT\""},
        {"{\"peft_type\":\"ADALORA\"}", "\"init_r\" is missing"},
        {"{\"peft_type\":\"FULL\"}", "\"FULL\""},
        {"{\"peft_type\":\"LORA\",\"lora_alpha\":8," QV "}", "\"r\" is missing"},
        {"{\"peft_type\":\"LORA\",\"r\":8," QV "}", "\"lora_alpha\" is missing"},
        {"{" LORA "}", "\"target_modules\" is missing"},
        {"{" LORA ",\"target_modules\":[]}", NULL},
        {"{" LORA ",\"target_modules\":[\"c_attn\"]}", "selects no linear"},
        {"{" LORA ",\"target_modules\":\"q_proj\"}", "selects no linear"},
        {"{" LORA ",\"target_modules\":[\"q_proj\",\"lm_head\"]}", "\"lm_head\""},
        {"{" LORA ",\"target_modules\":[\"embed_tokens\"]}", "\"model.embed_tokens\""},
        {"{" LORA ",\"target_modules\":\"(\"}", "no regular expression"},
        {"{" LORA ",\"target_modules\":\"((.*)*)*x\"}", ""},
        {"{" LORA ",\"target_modules\":3}", "must be a string or a list"},
        {"{" LORA ",\"target_modules\":[3]}", "must be a string or a list"},
        {"{" LORA ",\"target_modules\":\"all-linear\",\"layers_to_transform\":[0]}",
         "\"layers_to_transform\""},
        {"{" LORA "," QV ",\"layers_to_transform\":\"0\"}", "\"layers_to_transform\""},
        {"{" LORA "," QV ",\"layers_to_transform\":[0],\"layers_pattern\":\"blocks\"}",
         "selects no linear"},
        {"{" LORA "," QV ",\"rank_pattern\":{\"q_proj\":0}}", "\"rank_pattern\""},
        {"{" LORA "," QV ",\"rank_pattern\":{\"q_proj\":\"2\"}}", "\"rank_pattern\""},
        {"{" LORA "," QV ",\"rank_pattern\":[2]}", "\"rank_pattern\" must be an object"},
        {"{" LORA "," QV ",\"alpha_pattern\":{\"[\":2}}", "no regular expression"},
        {"{" LORA "," QV ",\"use_dora\":1}", "\"use_dora\" is 1"},
        {"{" LORA "," QV ",\"lora_bias\":true}", "\"lora_bias\" is true"},
        {"{" LORA "," QV ",\"bias\":\"all\"}", "\"bias\" is \"all\""},
        {"{" LORA "," QV ",\"fan_in_fan_out\":true}", "\"fan_in_fan_out\""},
        {"{" LORA "," QV ",\"modules_to_save\":[\"lm_head\"]}", "\"modules_to_save\""},
        {"{" LORA "," QV ",\"layer_replication\":[[0,2]]}", "\"layer_replication\""},
        {"{" LORA "," QV ",\"trainable_token_indices\":[1]}", "\"trainable_token_indices\""},
        {"{" LORA "," QV ",\"megatron_config\":{\"a\":1}}", "\"megatron_config\""},
        {"{" LORA "," QV ",\"init_lora_weights\":\"pissa\"}", "\"pissa\""},
        {"{" LORA "," QV ",\"init_lora_weights\":\"pissa_niter_4\"}", "\"pissa_niter_4\""},
        {"{" LORA "," QV ",\"init_lora_weights\":\"olora\"}", "\"olora\""},
        {"{" LORA "," QV ",\"task_type\":\"SEQ_CLS\"}", "\"SEQ_CLS\""},
        {"{" LORA "," QV ",\"use_rslora\":1}", "\"use_rslora\" must be true or false"},
        {"{" LORA "," QV ",\"lora_dropout\":2}", "\"lora_dropout\" is 2"},
        {"{\"peft_type\":\"LORA\",\"r\":0,\"lora_alpha\":8," QV "}", "\"r\" is 0"},
        {"{\"peft_type\":\"LORA\",\"r\":1.5,\"lora_alpha\":8," QV "}", "\"r\" must be an integer"},
        {"{\"peft_type\":\"IA3\",\"target_modules\":[\"k_proj\"]}",
         "\"feedforward_modules\" is missing"},
        {"{" ADALORA "," QV ",\"rank_pattern\":{\"v_proj.lora_E\":3}}", "\"rank_pattern\""},
        {"{" PREFIX ",\"token_dim\":24}", "\"token_dim\" is 24"},
        {"{" PREFIX ",\"num_layers\":3}", "\"num_layers\" is 3"},
        {"{" PREFIX ",\"num_transformer_submodules\":2}", "\"num_transformer_submodules\""},
        {"{" PREFIX ",\"pedrobench\":{\"option\":{}}}", "\"option\""},
        {"{" PREFIX ",\"pedrobench\":{\"options\":{\"size\":1}}}", "\"size\""},
        {"{" PREFIX ",\"pedrobench\":{\"backbone\":{\"hidden_size\":7}}}", "hidden_size is 20"},
        {"{" PREFIX ",\"pedrobench\":{\"backbone\":{\"sha256\":\"aaaa\"}}}", "other weights"},
        {"{\"peft_type\":\"PEDRO\",\"r\":2}", "\"targets\" is missing"},
        {"{\"peft_type\":\"PEDRO\",\"r\":2,\"targets\":[\"x\"]}", "x"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const pb_method *m;
        void *o;
        pb_adapter *a = NULL;
        pb_err err = read_text(cases[i].text, "bbbb", &m, &o);
        if (!err) { // some are for the method to refuse
            err = pb_adapter_new(&a, m, o, base, false);
            free(o);
        }
        if (!err || err == PB_INTERNAL)
            fail_msg("%s: accepted, or %s", cases[i].text, pb_error_message());
        if (cases[i].says && !strstr(pb_error_message(), cases[i].says))
            fail_msg("%s: \"%s\" does not say %s", cases[i].text, pb_error_message(),
                     cases[i].says);
    }
}

// ---------------------------------------------------------------- weights

// Each change of a saved folder is refused by the tensor's name.
static void weights(void **state)
{
    char folder[400], file[440];
    enum { MISSING, EXTRA, RENAMED, SHAPE, NAN_VALUE, N_CHANGES };
    static const char *const key = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight";
    (void)state;
    for (int change = 0; change < N_CHANGES; change++) {
        pb_adapter *a = make("lora", base, "targets=q,v"), *b;
        save(a, folder);
        snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
        pb_tensor_out out[16];
        size_t n = 0;
        static real zeros[4096];
        memset(zeros, 0, sizeof zeros);
        pb_tensors *t;
        OK(pb_tensors_open(&t, file));
        for (size_t i = 0; i < pb_tensors_count(t); i++) {
            const pb_tensor *x = pb_tensors_at(t, i);
            bool hit = !strcmp(x->name, key);
            if (hit && change == MISSING)
                continue;
            out[n] = (pb_tensor_out){x->name, PB_F32, 2, {x->shape[0], x->shape[1]}, zeros};
            if (hit && change == RENAMED)
                out[n].name = "base_model.model.model.layers.1.self_attn.q_proj.lora_C.weight";
            if (hit && change == SHAPE)
                out[n].shape[1]++;
            n++;
        }
        if (change == EXTRA)
            out[n++] =
                (pb_tensor_out){"base_model.model.lm_head.lora_A.weight", PB_F32, 2, {1, 2}, zeros};
        if (change == NAN_VALUE)
            zeros[2] = NAN;
        OK(pb_tensors_write(file, out, n, NULL));
        pb_tensors_close(t);
        assert_int_not_equal(pb_adapter_load(&b, folder, base, NULL), PB_OK);
        assert_null(b);
        const char *says = change == EXTRA       ? "lm_head.lora_A"
                           : change == NAN_VALUE ? "has the value"
                                                 : key;
        if (!strstr(pb_error_message(), says))
            fail_msg("\"%s\" does not name %s", pb_error_message(), says);
        pb_adapter_free(a);
    }
}

static void pickle(void **state)
{
    char folder[400], file[440];
    pb_adapter *a = make("ia3", base, ""), *b;
    (void)state;
    save(a, folder);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
    assert_int_equal(remove(file), 0);
    snprintf(file, sizeof file, "%s/adapter_model.bin", folder);
    OK(pb_file_write(file, "x", 1));
    assert_int_equal(pb_adapter_load(&b, folder, base, NULL), PB_UNSUPPORTED);
    assert_non_null(strstr(pb_error_message(), "adapter_model.bin"));
    assert_non_null(strstr(pb_error_hint(), "safetensors"));
    assert_int_equal(remove(file), 0);
    pb_adapter_free(a);
}

// Who made it for which weights stands in the file, and is looked at.
static void identity(void **state)
{
    char folder[400];
    pb_adapter *a = make("prefix", base, "init=random length=4"), *b, *c;
    (void)state;
    pb_adapter_made_for(a, "somewhere", "abcd");
    save(a, folder);
    OK(pb_adapter_load(&b, folder, base, "abcd"));
    assert_string_equal(b->base, "somewhere");
    assert_string_equal(b->base_sha256, "abcd");
    OK(pb_adapter_load(&c, folder, base, NULL)); // nobody knows
    pb_adapter_free(c);
    assert_int_equal(pb_adapter_load(&c, folder, base, "abce"), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "other weights"));
    pb_config other = *base; // the same rows of keys and values, but another backbone
    other.ffn++;
    assert_int_equal(pb_adapter_load(&c, folder, &other, NULL), PB_INPUT);
    assert_non_null(strstr(pb_error_message(), "intermediate_size"));
    // Trained further, with options that leave the parameters as they are.
    OK(pb_adapter_trainable(&c, b, NULL));
    assert_memory_equal(c->params.v, a->params.v, a->layout.size * sizeof(real));
    assert_non_null(c->params.d);
    pb_adapter_free(c);
    void *o = malloc(b->method->options_size);
    memcpy(o, b->options, b->method->options_size);
    OK(pb_options_set(b->method, o, "length", "5"));
    assert_int_equal(pb_adapter_trainable(&c, b, o), PB_USAGE);
    free(o);
    pb_adapter_free(a);
    pb_adapter_free(b);
}

// ---------------------------------------------------------------- lists of linears

static void lists(void **state)
{
    static const char *const good[] = {"", "q", "q,v", "q@0", "q@0-1,v", "down@1+0", "q@0+2-3+9,v"};
    static const char *const bad[] = {
        "x",   "q,",   ",q",   "q@",   "q@a", "q@1-0",  "q@0+",
        "q:1", "q@-1", "q @0", "q@0-", "qv",  "q@5000", "q@99999999999999999999"};
    static const char *const numbers[] = {"q:1", "q@0-1:4096,v:2"}, *const no_numbers[] = {
                                                                        "q",      "q:",   "q:0",
                                                                        "q:5000", "q:x",  "q:nan",
                                                                        "q:1:2",  "q:1@0"};
    const pb_method *m = pb_method_find("lora");
    void *o;
    double v = 0;
    (void)state;
    OK(pb_options_new(&o, m));
#define EACH(list, option, want)                                                                   \
    for (size_t i = 0; i < sizeof(list) / sizeof *(list); i++)                                     \
        if ((pb_options_set(m, o, option, (list)[i]) == PB_OK) != (want))                          \
            fail_msg("%s=%s", option, (list)[i]);
    EACH(good, "targets", true)
    EACH(bad, "targets", false)
    EACH(numbers, "ranks", true)
    EACH(no_numbers, "ranks", false)
    assert_true(pb_site_listed("q@0-1+4,v", 4, PB_LIN_Q, NULL));
    assert_false(pb_site_listed("q@0-1+4,v", 3, PB_LIN_Q, NULL));
    assert_true(pb_site_listed("q@0-1+4,v", 3, PB_LIN_V, NULL));
    assert_true(pb_site_listed("q:3,q@2:5", 2, PB_LIN_Q, &v) && v == 5);
    assert_true(pb_site_listed("q:3,q@2:5", 1, PB_LIN_Q, &v) && v == 3);
    assert_int_equal(pb_sites_fit("q@0-1,v@2", base), PB_USAGE);
    OK(pb_sites_fit("q@0-1,v@1", base));
    // A list of what is listed is the list.
    double value[5 * PB_N_LINEARS];
    static const char *const same[] = {"q,v", "q@0-2+4,k@3", "q@0+2-3:2,q@1+4:7,down:0.5"};
    for (size_t n = 0; n < sizeof same / sizeof *same; n++) {
        for (size_t i = 0; i < 5; i++)
            for (int t = 0; t < PB_N_LINEARS; t++) {
                v = 0;
                bool listed = pb_site_listed(same[n], i, (pb_linear_id)t, &v);
                value[i * PB_N_LINEARS + (size_t)t] = listed ? v : (double)NAN;
            }
        assert_string_equal(pb_sites_list(value, 5, n == 2), same[n]);
    }
    free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published), cmocka_unit_test(variants), cmocka_unit_test(told_apart),
        cmocka_unit_test(pruned),    cmocka_unit_test(selected), cmocka_unit_test(refused),
        cmocka_unit_test(weights),   cmocka_unit_test(pickle),   cmocka_unit_test(identity),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, tiny_folder_make, tiny_folder_remove);
}
