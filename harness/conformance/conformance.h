// Conformance: the same checks for every method, of the suite and of plugins, on small random
// backbones. A check that fails says in one sentence what is wrong, and in another where to look.
//
// Checks run in child processes: a method that crashes, prints or ends the program is one more
// finding.
#ifndef PB_CONFORMANCE_H
#define PB_CONFORMANCE_H

#include "methods/method.h"

// A method with settings such as "rank=5 targets=q,v".
typedef struct pb_subject {
    const pb_method *m;
    char options[100];
    bool moved;  // these settings leave the identity on purpose
    bool widely; // on every backbone; else on one of them
} pb_subject;

typedef struct pb_subjects {
    pb_subject *s;
    size_t n, cap;
} pb_subjects;

pb_err pb_subjects_add(pb_subjects *list, const pb_method *m, const char *options, bool moved,
                       bool widely);
// Its defaults, both ends of its knob, and every value of its switches, names and lists.
pb_err pb_subjects_of(pb_subjects *list, const pb_method *m);
void pb_subjects_free(pb_subjects *list);

typedef enum pb_verdict { PB_PASSED, PB_FAILED, PB_SKIPPED } pb_verdict;

typedef struct pb_finding {
    const pb_subject *subject;
    const char *backbone, *check;
    char name[240]; // "method options, backbone: check"
    pb_verdict verdict;
    char why[600], hint[300]; // of a failure; why: also of a skip, and notes
    double seconds;
} pb_finding;

typedef struct pb_conformance_args {
    const char *only; // checks whose name ("method options, backbone: check") contains it, or NULL
    bool here;        // in this process, for debuggers
    void *self;
    void (*found)(void *self, const pb_finding *f);
} pb_conformance_args;

// Runs the checks; fails only when it cannot run them.
pb_err pb_conformance_run(const pb_subjects *list, const pb_conformance_args *args);

// The checks, as (name, what it sees) pairs; NULL-terminated.
extern const char *const pb_conformance_checks[][2];

#endif
