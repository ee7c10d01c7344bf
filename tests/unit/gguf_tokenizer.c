// Tokenizers inside GGUF files: GPT-2's and LLaMA-2's, put into metadata the way converters do, and
// read back, on published vectors.
#include "model/gguf_tokenizer.h"

#include "unit/vectors.h"

static void open_data(pb_file *f, const char *name)
{
    accept(pb_file_map(f, data_file(name)));
}

static json_t *gpt2(void)
{
    pb_file vocab, merges;
    json_t *ids, *id;
    const char *text;
    open_data(&vocab, "tokenizers/gpt2/vocab.json");
    open_data(&merges, "tokenizers/gpt2/vocab.bpe");
    accept(pb_json_parse(&ids, (const char *)vocab.data, vocab.size, "vocab.json"));
    json_t *tokens = json_array(), *types = json_array(), *pairs = json_array();
    for (size_t i = 0; i < json_object_size(ids); i++) {
        json_array_append_new(tokens, json_null());
        json_array_append_new(types, json_integer(1));
    }
    json_object_foreach(ids, text, id)
    {
        json_array_set_new(tokens, (size_t)json_integer_value(id), json_string(text));
    }
    json_array_set_new(types, 50256, json_integer(3));
    const char *line = (const char *)merges.data, *end = line + merges.size;
    for (const char *stop; line < end; line = stop + 1) {
        stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop)
            stop = end;
        bool title = stop - line > 8 && memcmp(line, "#version", 8) == 0;
        if (stop > line && !title)
            json_array_append_new(pairs, json_stringn(line, (size_t)(stop - line)));
    }
    json_decref(ids);
    pb_file_unmap(&vocab);
    pb_file_unmap(&merges);
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:i, s:i}", "tokenizer.ggml.model", "gpt2",
                     "tokenizer.ggml.pre", "gpt-2", "tokenizer.ggml.tokens", tokens,
                     "tokenizer.ggml.token_type", types, "tokenizer.ggml.merges", pairs,
                     "tokenizer.ggml.bos_token_id", 50256, "tokenizer.ggml.eos_token_id", 50256);
}

static void test_gpt2(void **state)
{
    (void)state;
    json_t *meta = gpt2();
    pb_tokenizer *t;
    accept(pb_gguf_tokenizer_open(&t, meta, 50257));
    assert_int_equal(pb_tokenizer_vocab(t), 50257);
    assert_int_equal(pb_tokenizer_control(t, "<|endoftext|>"), 50256);
    assert_int_equal(pb_tokenizer_bos(t), -1); // it has one, and does not use it
    assert_int_equal(pb_tokenizer_eos(t), 50256);
    check_vectors(t, "ggml-vocab-gpt-2.gguf");
    pb_tokenizer_close(t);
    json_object_set_new(meta, "tokenizer.ggml.add_bos_token", json_true());
    accept(pb_gguf_tokenizer_open(&t, meta, 50257));
    assert_int_equal(pb_tokenizer_bos(t), 50256);
    pb_tokenizer_close(t);
    json_decref(meta);
}

static uint64_t varint(const uint8_t **p)
{
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        uint8_t b = *(*p)++;
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return v;
    }
}

// The pieces of a tokenizer.model as GGUF's lists.
static json_t *llama2(void)
{
    pb_file f;
    open_data(&f, "tokenizers/llama2/tokenizer.model");
    json_t *tokens = json_array(), *scores = json_array(), *types = json_array();
    for (const uint8_t *p = f.data, *end = p + f.size; p < end;) {
        uint64_t tag = varint(&p), size = varint(&p);
        const uint8_t *stop = p + size;
        assert_int_equal(tag & 7, 2);
        int64_t type = 1;
        float score = 0;
        while (tag == 10 && p < stop) {
            uint64_t field = varint(&p);
            if (field == 10) {
                uint64_t n = varint(&p);
                json_array_append_new(tokens, json_stringn((const char *)p, n));
                p += n;
            } else if (field == 21) {
                memcpy(&score, p, 4);
                p += 4;
            } else {
                assert_int_equal(field, 24);
                type = (int64_t)varint(&p);
            }
        }
        if (tag == 10) {
            json_array_append_new(scores, json_real((double)score));
            json_array_append_new(types, json_integer(type));
        }
        p = stop;
    }
    pb_file_unmap(&f);
    return json_pack("{s:s, s:o, s:o, s:o, s:i, s:i, s:i}", "tokenizer.ggml.model", "llama",
                     "tokenizer.ggml.tokens", tokens, "tokenizer.ggml.scores", scores,
                     "tokenizer.ggml.token_type", types, "tokenizer.ggml.bos_token_id", 1,
                     "tokenizer.ggml.eos_token_id", 2, "tokenizer.ggml.unknown_token_id", 0);
}

static void test_llama2(void **state)
{
    (void)state;
    json_t *meta = llama2();
    pb_tokenizer *t;
    accept(pb_gguf_tokenizer_open(&t, meta, 32000));
    assert_int_equal(pb_tokenizer_vocab(t), 32000);
    assert_int_equal(pb_tokenizer_bos(t), 1);
    assert_int_equal(pb_tokenizer_eos(t), 2);
    check_vectors(t, "ggml-vocab-llama-spm.gguf");
    pb_tokenizer_close(t);
    json_decref(meta);
}

static void refuse(const char *text, pb_err code, const char *message)
{
    json_t *meta;
    pb_tokenizer *t;
    accept(pb_json_parse(&meta, text, strlen(text), "metadata"));
    pb_err err = pb_gguf_tokenizer_open(&t, meta, 0);
    if (err != code || (err && !strstr(pb_error_message(), message)))
        fail_msg("%s\n  expected \"%s\", got %s: %s", text, message, pb_error_name(err),
                 err ? pb_error_message() : "");
    assert_null(t);
    json_decref(meta);
}

static void test_refusals(void **state)
{
    (void)state;
#define MODEL(name)  "\"tokenizer.ggml.model\":\"" name "\""
#define TOKENS(list) ",\"tokenizer.ggml.tokens\":" list
    refuse("{}", PB_OK, "");
    refuse("{" MODEL("none") "}", PB_OK, "");
    refuse("{" MODEL("bert") "}", PB_UNSUPPORTED, "\"bert\"");
    refuse("{\"tokenizer.ggml.model\":7}", PB_INPUT, "tokenizer.ggml.model");
    refuse("{" MODEL("llama") "}", PB_INPUT, "tokenizer.ggml.tokens");
    refuse("{" MODEL("llama") TOKENS("[]") "}", PB_INPUT, "empty");
    refuse("{" MODEL("llama") TOKENS("[\"a\",7,\"b\"]") "}", PB_INPUT, "token 1");
    refuse("{" MODEL("llama") TOKENS("[\"a\",\"b\",\"c\"]") ",\"tokenizer.ggml.scores\":[1]}",
           PB_INPUT, "not a list of 3");
    refuse("{" MODEL("llama") TOKENS("[\"a\",\"b\",\"c\"]") ",\"tokenizer.ggml.token_type\":"
                                                            "[1,9,1]}",
           PB_INPUT, "token 1");
    refuse("{" MODEL("llama") TOKENS("[\"a\",\"b\",\"c\"]") ",\"tokenizer.ggml.bos_token_id\":3}",
           PB_INPUT, "bos_token_id");
    refuse("{" MODEL("gpt2") TOKENS("[\"a\"]") "}", PB_INPUT, "merges");
    refuse("{" MODEL("gpt2") TOKENS("[\"a\",\"a\"]") ",\"tokenizer.ggml.merges\":[]}", PB_INPUT,
           "token 1 is there twice");
    refuse("{" MODEL("gpt2") TOKENS("[\"a\"]") ",\"tokenizer.ggml.merges\":[],"
                                               "\"tokenizer.ggml.pre\":\"odd\"}",
           PB_UNSUPPORTED, "\"odd\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_llama2),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
