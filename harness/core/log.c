#include "core/log.h"

#include "core/clock.h"
#include <signal.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static bool quiet, lines;
static bool line_open; // a progress line without a newline is on the terminal
static volatile sig_atomic_t stop_requested;

void pb_log_quiet(bool q)
{
    quiet = q;
}

bool pb_log_is_quiet(void)
{
    return quiet;
}

static void clear_line(void)
{
    if (line_open)
        fputs("\r\033[K", stderr);
    line_open = false;
}

void pb_progress_hide(void)
{
    clear_line();
    fflush(stderr);
}

void pb_info(const char *fmt, ...)
{
    if (quiet)
        return;
    clear_line();
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void pb_warn(const char *fmt, ...)
{
    clear_line();
    fputs("warning: ", stderr);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

static void format_time(char out[16], double s)
{
    if (!(s >= 0) || s > 359999)
        snprintf(out, 16, "--:--");
    else if (s >= 3600)
        snprintf(out, 16, "%d:%02d:%02d", (int)s / 3600, (int)s / 60 % 60, (int)s % 60);
    else
        snprintf(out, 16, "%02d:%02d", (int)s / 60, (int)s % 60);
}

static void draw(pb_progress *p, const char *detail, bool last)
{
    bool tty = !lines && isatty(STDERR_FILENO);
    double now = pb_now(), spent = now - p->start;
    double wait = tty ? 0.1 : p->interval;
    if (quiet || (!last && now - p->last_draw < wait))
        return;
    p->last_draw = now;
    int64_t fresh = p->done - p->done_at_start;
    double left = fresh > 0 ? spent / (double)fresh * (double)(p->total - p->done) : -1;
    char t[16], bar[24] = "";
    format_time(t, last ? spent : left);
    if (tty) {
        int n = p->total > 0 ? (int)(20 * p->done / p->total) : 0;
        for (int i = 0; i < 20; i++)
            bar[i] = i < n ? '#' : '.';
        bar[20] = ' ';
        bar[21] = 0;
        clear_line();
    }
    fprintf(stderr, "%s %s%lld/%lld  %s%s%s %s", p->label, bar, (long long)p->done,
            (long long)p->total, detail ? detail : "", detail ? "  " : "", t,
            last ? "taken" : "left");
    if (tty && !last) {
        fflush(stderr);
        line_open = true;
    } else {
        fputc('\n', stderr);
    }
}

void pb_progress_lines(void)
{
    lines = true;
}

void pb_progress_begin(pb_progress *p, const char *label, int64_t done, int64_t total)
{
    *p = (pb_progress){.total = total, .done = done, .done_at_start = done};
    snprintf(p->label, sizeof p->label, "%s", label);
    p->start = p->last_draw = pb_now();
    p->interval = 5;
}

void pb_progress_update(pb_progress *p, int64_t done, const char *detail)
{
    p->done = done;
    draw(p, detail, false);
}

void pb_progress_end(pb_progress *p, const char *detail)
{
    draw(p, detail, true);
    line_open = false;
}

enum { GRACE = 60 }; // seconds
static volatile sig_atomic_t timed_out;

static void on_signal(int sig)
{
    if (sig == SIGALRM && !timed_out) {
        timed_out = 1;
        alarm(GRACE);
    }
    if (stop_requested) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
    stop_requested = 1;
    static const char text[] = "\nstopping after this step (again to stop at once)\n";
    static const char late[] = "\nthe time is up: stopping after this step\n";
    if (write(STDERR_FILENO, timed_out ? late : text, (timed_out ? sizeof late : sizeof text) - 1) <
        0)
        return;
}

void pb_signals_install(void)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_signal;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGALRM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool pb_interrupted(void)
{
    return stop_requested;
}

void pb_time_limit(double seconds)
{
    struct itimerval t = {.it_value.tv_sec = (time_t)seconds,
                          .it_value.tv_usec = (suseconds_t)(fmod(seconds, 1) * 1e6)};
    setitimer(ITIMER_REAL, &t, NULL);
}

bool pb_timed_out(void)
{
    return timed_out;
}
