// A template is four texts in which single control characters stand for what is put in. They
// follow the formats as published with the models: Meta's llama (llama2) and llama3 repositories,
// OpenAI's ChatML as Qwen and SmolLM use it, the model cards of Mistral 7B Instruct, Gemma,
// TinyLlama Chat (zephyr), and the prompts of Stanford Alpaca.
#include "model/chat.h"

#include "core/file.h"
#include "core/json.h"
#include <stdlib.h>
#include <string.h>

// Marks in the templates. TOKEN(name) becomes the token of that name.
#define TOKEN(name) "\1" name "\2"
#define BOS         "\3"
#define EOS         "\4"
#define TEXT        "\5"
#define SYSTEM      "\6"

struct pb_chat_template {
    const char *name;
    const char *begin;
    const char *first;     // the first turn of the user when there is a system message
    const char *user;      // and every other turn, or the first without one
    const char *assistant; // answers of the past
    const char *answer;    // what the model goes on from
    const char *end;       // the token that ends an answer; NULL: EOS
    const char *system;    // the system message when none is given
    bool trim;             // messages lose the white space at both ends
};

#define LLAMA3(role)            TOKEN("<|start_header_id|>") role TOKEN("<|end_header_id|>") "\n\n"
#define LLAMA3_TURN(role, text) LLAMA3(role) text TOKEN("<|eot_id|>")
#define CHATML(role)            TOKEN("<|im_start|>") role "\n"
#define CHATML_TURN(role, text) CHATML(role) text TOKEN("<|im_end|>") "\n"
#define GEMMA(role)             TOKEN("<start_of_turn>") role "\n"
#define GEMMA_TURN(role, text)  GEMMA(role) text TOKEN("<end_of_turn>") "\n"
#define ALPACA_TURN             "### Instruction:\n" TEXT "\n\n### Response:"

static const pb_chat_template templates[] = {
    {.name = "plain",
     .begin = BOS,
     .first = SYSTEM "\n\nUser: " TEXT "\n",
     .user = "User: " TEXT "\n",
     .assistant = "Assistant: " TEXT "\n",
     .answer = "Assistant:"},
    {.name = "llama2",
     .begin = "",
     .first = BOS "[INST] <<SYS>>\n" SYSTEM "\n<</SYS>>\n\n" TEXT " [/INST]",
     .user = BOS "[INST] " TEXT " [/INST]",
     .assistant = " " TEXT " " EOS,
     .answer = "",
     .trim = true},
    {.name = "llama3",
     .begin = BOS,
     .first = LLAMA3_TURN("system", SYSTEM) LLAMA3_TURN("user", TEXT),
     .user = LLAMA3_TURN("user", TEXT),
     .assistant = LLAMA3_TURN("assistant", TEXT),
     .answer = LLAMA3("assistant"),
     .end = "<|eot_id|>",
     .trim = true},
    {.name = "chatml",
     .begin = "",
     .first = CHATML_TURN("system", SYSTEM) CHATML_TURN("user", TEXT),
     .user = CHATML_TURN("user", TEXT),
     .assistant = CHATML_TURN("assistant", TEXT),
     .answer = CHATML("assistant"),
     .end = "<|im_end|>"},
    {.name = "mistral", // v0.1 and v0.2, where [INST] is text
     .begin = BOS,
     .first = "[INST] " SYSTEM "\n\n" TEXT " [/INST]",
     .user = "[INST] " TEXT " [/INST]",
     .assistant = " " TEXT EOS,
     .answer = ""},
    {.name = "mistral3", // v0.3 on, where it is a token
     .begin = BOS,
     .first = TOKEN("[INST]") SYSTEM "\n\n" TEXT TOKEN("[/INST]"),
     .user = TOKEN("[INST]") TEXT TOKEN("[/INST]"),
     .assistant = TEXT EOS,
     .answer = ""},
    {.name = "gemma", // has no system role: its own template puts that text in front of the user's
     .begin = BOS,
     .first = GEMMA_TURN("user", SYSTEM "\n\n" TEXT),
     .user = GEMMA_TURN("user", TEXT),
     .assistant = GEMMA_TURN("model", TEXT),
     .answer = GEMMA("model"),
     .end = "<end_of_turn>",
     .trim = true},
    {.name = "zephyr",
     .begin = BOS,
     .first = "<|system|>\n" SYSTEM EOS "\n<|user|>\n" TEXT EOS "\n",
     .user = "<|user|>\n" TEXT EOS "\n",
     .assistant = "<|assistant|>\n" TEXT EOS "\n",
     .answer = "<|assistant|>\n"},
    {.name = "alpaca",
     .begin = BOS,
     .first = SYSTEM "\n\n" ALPACA_TURN,
     .user = ALPACA_TURN,
     .assistant = TEXT "\n\n",
     .answer = "",
     .system = "Below is an instruction that describes a task. "
               "Write a response that appropriately completes the request."},
};
enum { N_TEMPLATES = sizeof templates / sizeof *templates, MAX_TOKENS = 3 };

pb_err pb_chat_find(const pb_chat_template **out, const char *name)
{
    char hint[200] = "templates:";
    for (size_t i = 0; i < N_TEMPLATES; i++) {
        *out = &templates[i];
        if (!strcmp((*out)->name, name))
            return PB_OK;
        strcat(strcat(hint, i ? ", " : " "), (*out)->name);
    }
    return pb_fail(PB_USAGE, hint, "there is no chat template \"%.100s\"", name);
}

const char *pb_chat_name(const pb_chat_template *t)
{
    return t->name;
}

// What a Jinja template has in it -> the template's name. The first that fits is taken.
static const char *const markers[][2] = {
    {"<|start_header_id|>", "llama3"},
    {"<|im_start|>", "chatml"},
    {"<start_of_turn>", "gemma"},
    {"<<SYS>>", "llama2"},
    {"[INST]", "mistral"},
    {"### Instruction:", "alpaca"},
};

static pb_err detect(const pb_chat_template **out, const char **marker, const char *jinja)
{
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
        if (strstr(jinja, markers[i][0])) {
            *marker = markers[i][0];
            // From version 3 on no space stands in front of the closing marker.
            bool mistral3 = !strcmp(*marker, "[INST]") && !strstr(jinja, " [/INST]");
            return pb_chat_find(out, mistral3 ? "mistral3" : markers[i][1]);
        }
    // Others write <|user|> too, and end the turn by other tokens.
    *marker = "<|user|>";
    if (strstr(jinja, *marker) && strstr(jinja, "eos_token") && !strstr(jinja, "<|end|>"))
        return pb_chat_find(out, "zephyr");
    return pb_fail(PB_UNSUPPORTED, "name one with --chat",
                   "the model's chat template is none of those known here");
}

// The Jinja text in tokenizer_config.json: a string, or a list in which one is named "default".
static const char *jinja_of(const json_t *config)
{
    const json_t *t = json_object_get(config, "chat_template"), *each;
    size_t i;
    if (json_is_array(t))
        json_array_foreach(t, i, each)
        {
            const char *name = json_string_value(json_object_get(each, "name"));
            if (name && !strcmp(name, "default"))
                return json_string_value(json_object_get(each, "template"));
        }
    return json_string_value(t);
}

pb_err pb_chat_detect(const pb_chat_template **out, const char **marker, const char *folder)
{
    char path[4096];
    const char *jinja = NULL;
    json_t *config = NULL;
    pb_file file = {0};
    char *copy = NULL;
    pb_err err = pb_path(path, sizeof path, "%s/chat_template.jinja", folder);
    if (err)
        return err;
    if (pb_exists(path)) {
        PB_GO(pb_file_map(&file, path));
        jinja = copy = strndup(file.data ? (const char *)file.data : "", file.size);
    } else {
        PB_GO(pb_path(path, sizeof path, "%s/tokenizer_config.json", folder));
        if (pb_exists(path)) {
            PB_GO(pb_json_load(&config, path));
            jinja = jinja_of(config);
        }
    }
    err = jinja ? detect(out, marker, jinja)
                : pb_fail(PB_INPUT, "name one with --chat", "%s has no chat template", folder);
done:
    free(copy);
    json_decref(config);
    pb_file_unmap(&file);
    return err;
}

static pb_err check_messages(const pb_chat_message *m, size_t n)
{
    size_t system = n > 0 && !strcmp(m[0].role, "system");
    for (size_t i = system; i < n; i++) {
        const char *want = (i - system) % 2 ? "assistant" : "user";
        if (strcmp(m[i].role, want) != 0)
            return pb_fail(PB_INPUT, "user and assistant take turns, after one system message",
                           "message %zu is from \"%.100s\", not from %s", i + 1, m[i].role, want);
    }
    if ((n - system) % 2 == 0)
        return pb_fail(PB_INPUT, NULL, "the last message is not from the user");
    return PB_OK;
}

// One more part; text goes on with the text before it. The parts lie behind each other in memory.
static void add(pb_chat *c, pb_chat_kind kind, const char *text, size_t len)
{
    pb_chat_part *last = c->n ? &c->parts[c->n - 1] : NULL;
    char *to = c->memory + (last ? (size_t)(last->text - c->memory) + last->len : 0);
    if (kind == PB_CHAT_TEXT && len == 0)
        return;
    if (!last || kind != PB_CHAT_TEXT || last->kind != PB_CHAT_TEXT) {
        last = &c->parts[c->n++];
        *last = (pb_chat_part){kind, to, 0};
    }
    memcpy(to, text, len);
    last->len += len;
}

static void add_message(pb_chat *c, const pb_chat_template *t, const char *text)
{
    static const char blank[] = " \t\n\r\f\v";
    size_t len = strlen(text);
    if (t->trim) {
        size_t skip = strspn(text, blank);
        text += skip;
        len -= skip;
        while (len > 0 && strchr(blank, text[len - 1]))
            len--;
    }
    add(c, PB_CHAT_TEXT, text, len);
}

static void fill(pb_chat *c, const pb_chat_template *t, const char *form, const char *system,
                 const char *text)
{
    for (const char *at = form; *at;) {
        size_t plain = strcspn(at, "\1" BOS EOS TEXT SYSTEM), used = plain + 1;
        add(c, PB_CHAT_TEXT, at, plain);
        switch (at[plain]) {
        case 0:
            return;
        case '\1': // TOKEN
            used += strcspn(at + used, "\2") + 1;
            add(c, PB_CHAT_TOKEN, at + plain + 1, used - plain - 2);
            break;
        case '\3': // BOS
            add(c, PB_CHAT_BOS, "", 0);
            break;
        case '\4': // EOS
            add(c, PB_CHAT_EOS, "", 0);
            break;
        case '\5': // TEXT
            add_message(c, t, text);
            break;
        case '\6': // SYSTEM
            add_message(c, t, system);
            break;
        }
        at += used;
    }
}

pb_err pb_chat_format(pb_chat *out, const pb_chat_template *t, const pb_chat_message *messages,
                      size_t n)
{
    PB_TRY(check_messages(messages, n));
    bool given = !strcmp(messages[0].role, "system");
    const char *system = given ? messages[0].text : t->system;
    const pb_chat_message *m = messages + given, *end = messages + n;
    // A character of a template is at most one part.
    size_t parts = strlen(t->begin) + strlen(t->first) + strlen(t->answer);
    size_t bytes = parts + (system ? strlen(system) : 0);
    for (const pb_chat_message *k = m; k < end; k++) {
        size_t form = strlen((k - m) % 2 ? t->assistant : t->user);
        parts += form;
        bytes += form + strlen(k->text);
    }
    *out = (pb_chat){.end = t->end};
    out->parts = malloc(parts * sizeof *out->parts);
    out->memory = malloc(bytes);
    if (!out->parts || !out->memory) {
        pb_chat_free(out);
        return pb_fail(PB_MEMORY, NULL, "no memory for a conversation of %zu bytes", bytes);
    }
    fill(out, t, t->begin, NULL, NULL);
    for (const pb_chat_message *k = m; k < end; k++)
        fill(out, t,
             (k - m) % 2        ? t->assistant
             : k == m && system ? t->first
                                : t->user,
             system, k->text);
    fill(out, t, t->answer, NULL, NULL);
    return PB_OK;
}

void pb_chat_free(pb_chat *c)
{
    free(c->parts);
    free(c->memory);
    *c = (pb_chat){0};
}

// The token of this name. Not every file calls a marker a control token.
static pb_err token_of(const pb_tokenizer *t, const char *name, size_t len, int32_t *id,
                       pb_token_kind *kind)
{
    const char *text;
    size_t n;
    pb_token_kind k;
    *id = -1;
    *kind = PB_TOKEN_NONE;
    for (int32_t i = 0; (k = pb_tokenizer_token(t, i, &text, &n)) != PB_TOKEN_NONE; i++)
        if (n == len && memcmp(text, name, n) == 0 && (*id < 0 || k == PB_TOKEN_CONTROL)) {
            *id = i;
            *kind = k;
        }
    if (*id < 0)
        return pb_fail(PB_INPUT, "the model was made for another chat template",
                       "the tokenizer has no token \"%.*s\"", (int)len, name);
    return PB_OK;
}

// A token of the template.
typedef struct marker {
    const char *name;
    size_t len;
    int32_t id;
    bool spelled; // text could spell it
} marker;

typedef struct encoder {
    const pb_tokenizer *t;
    marker known[MAX_TOKENS];
    size_t n_known;
} encoder;

static pb_err find_marker(encoder *e, const char *name, size_t len, const marker **out)
{
    for (size_t i = 0; i < e->n_known; i++)
        if (e->known[i].len == len && memcmp(e->known[i].name, name, len) == 0) {
            *out = &e->known[i];
            return PB_OK;
        }
    pb_token_kind kind;
    marker m = {.name = name, .len = len};
    PB_TRY(token_of(e->t, name, len, &m.id, &kind));
    m.spelled = kind != PB_TOKEN_CONTROL;
    e->known[e->n_known] = m;
    *out = &e->known[e->n_known++];
    return PB_OK;
}

// Bytes up to and including the first byte of a marker that the text spells; all if it does not.
static size_t unspelled(const encoder *e, const char *text, size_t len)
{
    size_t least = len;
    for (size_t i = 0; i < e->n_known; i++) {
        const marker *m = &e->known[i];
        const char *at = m->spelled ? memmem(text, least, m->name, m->len) : NULL;
        if (at)
            least = (size_t)(at - text) + 1;
    }
    return least;
}

pb_err pb_chat_encode(const pb_chat *c, const pb_tokenizer *t, int32_t **ids, size_t *n,
                      size_t *cap, int32_t *end)
{
    encoder e = {.t = t};
    const marker *m;
    *end = pb_tokenizer_eos(t);
    for (size_t i = 0; i < c->n; i++) // before any text
        if (c->parts[i].kind == PB_CHAT_TOKEN)
            PB_TRY(find_marker(&e, c->parts[i].text, c->parts[i].len, &m));
    if (c->end) {
        PB_TRY(find_marker(&e, c->end, strlen(c->end), &m));
        *end = m->id;
    }
    for (size_t i = 0; i < c->n; i++) {
        const pb_chat_part *p = &c->parts[i];
        int32_t id = -1;
        if (p->kind == PB_CHAT_TEXT) {
            // A marker in the text is cut behind its first byte, so that it is only text.
            for (size_t at = 0, len; at < p->len; at += len) {
                len = unspelled(&e, p->text + at, p->len - at);
                PB_TRY(pb_tokenizer_encode(t, p->text + at, len, at > 0, ids, n, cap));
            }
            continue;
        }
        if (p->kind == PB_CHAT_TOKEN) {
            PB_TRY(find_marker(&e, p->text, p->len, &m));
            id = m->id;
        } else if (p->kind == PB_CHAT_BOS) {
            id = pb_tokenizer_bos(t);
        } else {
            id = pb_tokenizer_eos(t);
            if (id < 0)
                return pb_fail(PB_INPUT, "the model was made for another chat template",
                               "the tokenizer has no token that ends a sequence");
        }
        if (id < 0)
            continue;
        if (*n == *cap) {
            size_t more = *cap ? 2 * *cap : 64;
            int32_t *v = realloc(*ids, more * sizeof *v);
            if (!v)
                return pb_fail(PB_MEMORY, NULL, "no memory for %zu token ids", more);
            *ids = v;
            *cap = more;
        }
        (*ids)[(*n)++] = id;
    }
    return PB_OK;
}
