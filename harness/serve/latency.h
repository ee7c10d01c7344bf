// What adapters cost in a batch of many tenants: times of one backbone that serves them side by
// side, with the anchors that give the figures a meaning. Prefill, decode steps, and whole
// generations (prompts and a number of new tokens, greedily or by beam search).
//
// Every request of a batch has an adapter in memory of its own, with randomised values. The arms:
//
//   base, base-again  no adapter; twice, as two arms: their difference is the noise floor
//   none              hooks that do nothing
//   merged            one tenant's adapter folded into the weights of a backbone of its own
//   METHOD same       all requests use one adapter
//   METHOD different  every request uses another one
//   METHOD sorted     two requests share an adapter and are neighbours in the batch
//   METHOD unsorted   the same requests in an order in which they are not
//   METHOD loop       the same requests as `different`, one forward per tenant: what a server
//                     without a batched adapter computation does
//   mixed             requests go round over all methods, all adapters different
//   limits            what the machine can do: given by the caller, see pb_latency_limit
//
// Whole generations have no `same`, `sorted` and `unsorted`; their loop generates for one tenant
// after the other.
//
// Rounds: each arm gives one sample per round, in an order drawn anew for each round, so that a
// machine that slows down slows all arms. Before a sample of prefill or decoding the arm runs once
// without being timed: the arm before it may have left another backbone in the cache. In the first
// rounds it runs once more, with the clocks of its components on; whole generations always have
// these on. Before any timing, the logits of every request in every batch are compared, bit by bit,
// with those of the same request alone; of generations, the texts and scores of all arms that serve
// the same tenants.
#ifndef PB_SERVE_LATENCY_H
#define PB_SERVE_LATENCY_H

#include "model/forward.h"

typedef struct pb_latency_method {
    const pb_method *method;
    const void *options;
} pb_latency_method;

// A limit of the machine: work that is timed like an arm.
typedef struct pb_latency_limit {
    const char *name;
    double flops, bytes; // of what is timed
    pb_err (*sample)(void *self, double *seconds);
    void *self;
} pb_latency_limit;

typedef enum pb_latency_phase {
    PB_PHASE_PREFILL,
    PB_PHASE_DECODE,
    PB_PHASE_GENERATE,
    PB_PHASES
} pb_latency_phase;
extern const char *const pb_latency_phases[PB_PHASES]; // their names

typedef struct pb_latency_plan {
    const pb_model *base;
    const pb_model *merged; // with some tenant's adapter folded in; NULL: without that arm
    const pb_latency_method *methods;
    size_t n_methods;
    const pb_latency_limit *limits;
    size_t n_limits;
    bool phase[PB_PHASES];
    const size_t *tenants; // requests of a batch, increasing
    size_t n_tenants;
    const size_t *beams; // of generations
    size_t n_beams;
    size_t prompt, fresh; // tokens: of every prompt, and of every response before it starts anew
    double seconds;       // for all rounds together; more when min_samples asks for it
    size_t min_samples;   // of every arm
    uint64_t seed;
} pb_latency_plan;

typedef struct pb_latency_work {
    double flops, bytes;
} pb_latency_work;

enum { PB_LATENCY_PARTS = 2 };

// One arm at one phase and batch size.
typedef struct pb_latency_result {
    char name[160];                       // "decode/lora/different/16"
    const char *phase, *method, *sharing; // static, or the method's own; of a limit its name
    size_t method_index;                  // into the plan's methods, or SIZE_MAX
    size_t tenants, rows, beam;           // adapters and requests in the batch; beam: 0 of steps
    size_t tokens;                        // handled by one sample; of generations the new ones
    const int64_t *samples;               // (n) ns, one of each round
    size_t n, excluded;                   // excluded: earlier runs of the arm that are not kept
    pb_counts counts[PB_COMPONENTS];      // of one sample; the times of one fast run
    // The same by parts that the machine limits differently: steps with prompts, and others.
    pb_latency_work part[PB_LATENCY_PARTS];
    // Bytes: of one adapter (the largest in the batch; of a merged one its whole backbone), of keys
    // and values of one sequence, of the methods' state for one sequence.
    size_t adapter_bytes, kv_bytes, state_bytes;
    size_t
        memory; // of a generation: what a server of these adapters alone needs, backbone included
} pb_latency_result;

typedef struct pb_latency_observer {
    void *self;
    // Called when a batch size of a phase is done, arm by arm, limits first; the result lives
    // during the call, and the samples until the last arm's.
    pb_err (*result)(void *self, const pb_latency_result *r);
    // May be NULL. Seconds spent and expected, at most once per sample.
    void (*progress)(void *self, const char *what, double spent, double total);
} pb_latency_observer;

// Returns PB_INTERRUPTED after Ctrl-C; what was measured until then has been reported.
pb_err pb_latency_measure(const pb_latency_plan *plan, const pb_latency_observer *o);

// Bytes that measuring takes beside the backbones: adapters, caches, activations. `merged` says
// whether there is to be such an arm.
pb_err pb_latency_need(size_t *bytes, const pb_latency_plan *plan, bool merged);

// The adapter that tenant number `tenant` of a method has, in the form that is served: a pure
// function of its arguments, so that a caller can fold the same one into a backbone.
pb_err pb_latency_adapter(pb_adapter **out, const pb_latency_method *m, const pb_config *config,
                          uint64_t seed, size_t tenant);

#endif
