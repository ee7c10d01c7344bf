// Chat templates: how a conversation is written for a model that was trained on conversations.
//
// The markers of a turn are tokens, given by their ids; the text of a message cannot spell them.
// Where a published template has its markers in plain text (llama2, mistral, zephyr, alpaca), text
// can.
#ifndef PB_MODEL_CHAT_H
#define PB_MODEL_CHAT_H

#include "model/tokenizer.h"

typedef struct pb_chat_message {
    const char *role; // "system" (the first message only), "user" or "assistant"
    const char *text;
} pb_chat_message;

typedef enum pb_chat_kind {
    PB_CHAT_TEXT,
    PB_CHAT_TOKEN, // `text` is the name of a token
    PB_CHAT_BOS,   // the tokenizer's own; nothing where it has none
    PB_CHAT_EOS,
} pb_chat_kind;

typedef struct pb_chat_part {
    pb_chat_kind kind;
    const char *text; // not terminated; "" for BOS and EOS
    size_t len;
} pb_chat_part;

typedef struct pb_chat { // a conversation; start from zeros
    const char *end;     // name of the token that ends an answer; NULL: the EOS
    pb_chat_part *parts;
    size_t n;
    char *memory; // of the parts' texts
} pb_chat;

typedef struct pb_chat_template pb_chat_template;

// By name; "plain" is the one for models that know no template. An unknown name is refused with the
// names there are.
pb_err pb_chat_find(const pb_chat_template **out, const char *name);
const char *pb_chat_name(const pb_chat_template *t);

// The template of a model folder, by the marker tokens in the Jinja text of tokenizer_config.json
// or chat_template.jinja, which is not interpreted; *marker is what it was known by.
pb_err pb_chat_detect(const pb_chat_template **out, const char **marker, const char *folder);

// Writes the messages up to the point where the assistant answers. After an optional system message
// user and assistant take turns; the last message is the user's.
pb_err pb_chat_format(pb_chat *out, const pb_chat_template *t, const pb_chat_message *messages,
                      size_t n);
void pb_chat_free(pb_chat *c);

// Appends the ids, as pb_tokenizer_encode does; *end is the token that ends the answer, or -1.
pb_err pb_chat_encode(const pb_chat *c, const pb_tokenizer *t, int32_t **ids, size_t *n,
                      size_t *cap, int32_t *end);

#endif
