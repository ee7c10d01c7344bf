// Continuous batching: which requests run, and what a step computes of each.
//
// Requests wait in a queue, first come, first served. One is admitted between two steps, when KV
// slots are free (one per beam) and its tenant's adapter is in memory; while that is on its way,
// those behind go on. A step has one row for every open beam, and beside them prompt tokens up to
// its budget of rows, from the request admitted first on. Prompts are cut where the budget ends,
// except those of methods that read them as a whole: these wait until they fit, and the oldest
// prompt always goes on, even if it exceeds the budget.
//
// If there is no room for the adapter of one request, those behind it bring in none either: it
// would never get its turn. The same with slots.
//
// What a step does is behind pb_engine: a model, or a simulation of its time.
#ifndef PB_SERVE_SERVER_H
#define PB_SERVE_SERVER_H

#include "model/forward.h"
#include "serve/store.h"

enum { PB_MOST_BEAMS = 64, PB_MOST_STOPS = 16 };

typedef struct pb_decoding {
    size_t beam; // 0 and 1: greedy
    double length_penalty;
    size_t no_repeat_ngram; // no n-gram of this size comes twice in a response; 0: any may
} pb_decoding;
#define PB_GREEDY ((pb_decoding){1, 1, 0})

typedef enum pb_outcome {
    PB_WAITING, // in the queue, or not even there
    PB_RUNNING,
    PB_SERVED,
    PB_QUEUE_FULL, // rejected
    PB_NO_ADAPTER  // its tenant's adapter could not be loaded
} pb_outcome;
const char *pb_outcome_name(pb_outcome o);

typedef struct pb_stop {
    const int32_t *tokens; // (n), at least one
    size_t n;
} pb_stop;

// Times are in ns, of the engine's clock.
typedef struct pb_request {
    const int32_t *prompt; // (n_prompt), at least one token
    size_t n_prompt, max_new;
    int tenant;             // or -1
    int32_t *out;           // room for max_new tokens
    const pb_decoding *how; // NULL: greedy
    const pb_stop *stop;    // (n_stop) sequences that end a response, and are no part of it
    size_t n_stop;
    bool fixed;        // nothing ends it but max_new
    int64_t scheduled; // when it was due
    int64_t *token_ns; // room for max_new, or NULL: when each step of its decoding was done
    // Filled in:
    size_t n_out;   // an end token is not kept
    size_t n_steps; // of decoding
    bool ended;     // by an end token or a stop sequence
    double score;   // beam search: of the hypothesis
    pb_outcome outcome;
    int64_t queued, admitted, first, finished; // first: the first step of decoding was done
    // The server's own:
    struct pb_request *next;
    bool pinned;
} pb_request;

// ---------------------------------------------------------------- what runs

typedef struct pb_beam {
    size_t at;       // which of its request's slots it has
    double sum;      // of log-probabilities
    int32_t next;    // the token to be fed
    int32_t *tokens; // of the response so far
} pb_beam;

// A request that runs.
typedef struct pb_lane {
    pb_request *request; // NULL: free
    size_t number;
    size_t pos;     // tokens of the sequence that are in the cache
    size_t *slot;   // (n_slots)
    size_t n_slots; // one for each beam that there may be
    pb_beam *open; // (n), the engine's: what a step of decoding feeds; one until the prompt is done
    size_t n;
    bool whole;   // the prompt may not be cut
    void *search; // of the engine
} pb_lane;

// One step, and what its cost depends on.
typedef struct pb_work {
    pb_batch batch;
    const size_t *rows;            // (n_out): those whose logits are wanted
    size_t n_out, prefill, decode; // rows: of prompts, of beams
    size_t tenants;                // different adapters
    size_t adapter_bytes;          // of these
    size_t keys, pairs; // positions read, query and key pairs: of all segments, without prefixes
} pb_work;

typedef struct pb_engine {
    void *self;
    void (*begin)(void *self, pb_lane *l); // a request was admitted to the lane
    void (*run)(void *self, const pb_work *w);
    // Continues a lane with row number `first` of the outputs and those behind it, one for each
    // beam (after the prompt: one). Sets the beams to go on with. Returns whether it is done.
    bool (*advance)(void *self, pb_lane *l, size_t first);
    int64_t (*now)(void *self);
    // Returns when the clock shows `until`, or an adapter has come in; earlier is no mistake.
    void (*wait)(void *self, int64_t until);
} pb_engine;

typedef struct pb_server_limits {
    size_t slots;     // of keys and values
    size_t beam;      // the most beams of a request
    size_t positions; // of a slot: the longest prompt and response
    size_t rows;      // of a step, more than there are slots
    size_t queue;     // requests that may wait
} pb_server_limits;

typedef struct pb_server pb_server;

// The store may be NULL: then only the bare backbone is served. Both outlive the server.
pb_err pb_server_new(pb_server **out, const pb_server_limits *l, const pb_engine *e,
                     pb_store *store);
void pb_server_free(pb_server *s);

// The most rows that a step can have when no prompt that may not be cut is longer than `whole`.
size_t pb_server_most_rows(const pb_server_limits *l, size_t whole);

// Puts a request into the queue. A full queue is an outcome; what could never be served (an unknown
// tenant, too many tokens, an adapter larger than the store) is an error.
pb_err pb_server_submit(pb_server *s, pb_request *r);

// One step. Returns its work, or NULL when there was nothing to compute: all requests are done, or
// they wait for adapters.
const pb_work *pb_server_step(pb_server *s);
size_t pb_server_waiting(const pb_server *s);
size_t pb_server_running(const pb_server *s);
void pb_server_clear(pb_server *s); // forgets all requests

// Called for every request that leaves, whatever its outcome.
void pb_server_on_done(pb_server *s, void (*done)(void *self, pb_request *r), void *self);

#endif
