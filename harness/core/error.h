// Errors: a code, one sentence with the offending value, and a hint.
//
// Set-up functions return pb_err. The sentence and the hint belong to the thread that failed and
// stay valid until its next failure. No library code prints or exits: `main` does both.
#ifndef PB_CORE_ERROR_H
#define PB_CORE_ERROR_H

#pragma GCC visibility push(default)

#define PB_ERRORS(X)                                                                               \
    X(PB_OK, "ok")                                                                                 \
    X(PB_USAGE, "usage")             /* impossible option or command line: exit code 2 */          \
    X(PB_INPUT, "bad input")         /* a file or value that breaks its format */                  \
    X(PB_UNSUPPORTED, "unsupported") /* well formed, but not something this program can do */      \
    X(PB_IO, "input/output")         /* the operating system refused */                            \
    X(PB_MEMORY, "out of memory")                                                                  \
    X(PB_DIVERGED, "diverged")       /* a loss or gradient became NaN, infinite or absurd */       \
    X(PB_INTERRUPTED, "interrupted") /* the user asked to stop; state is saved */                  \
    X(PB_INTERNAL, "internal")       /* a defect of this program */                                \
    X(PB_BUSY, "busy")               /* another process is at it: exit code 75 */

#define PB_ERROR_ENUM(code, text) code,
typedef enum pb_err { PB_ERRORS(PB_ERROR_ENUM) } pb_err;
#undef PB_ERROR_ENUM

// Records a failure and returns `code`. `hint` may be NULL; `fmt` says what is wrong with which
// value.
pb_err pb_fail(pb_err code, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// Puts "context: " in front of the recorded sentence and returns `code` unchanged.
pb_err pb_context(pb_err code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *pb_error_name(pb_err code);
const char *pb_error_message(void);
const char *pb_error_hint(void); // "" when there is none

// Returns from the calling function when `expr` fails.
#define PB_TRY(expr)                                                                               \
    do {                                                                                           \
        pb_err try_err_ = (expr);                                                                  \
        if (try_err_)                                                                              \
            return try_err_;                                                                       \
    } while (0)

// Sets the local `err` and jumps to `done` when `expr` fails; for functions that must clean up.
#define PB_GO(expr)                                                                                \
    do {                                                                                           \
        err = (expr);                                                                              \
        if (err)                                                                                   \
            goto done;                                                                             \
    } while (0)

#pragma GCC visibility pop

#endif
