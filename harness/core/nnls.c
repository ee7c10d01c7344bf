#include "core/nnls.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

// In units in which every column has length 1.
typedef struct problem {
    size_t n;
    double G[PB_NNLS_MOST][PB_NNLS_MOST], h[PB_NNLS_MOST], x[PB_NNLS_MOST];
    size_t in[PB_NNLS_MOST], n_in;               // columns whose coefficients are free
    bool is_in[PB_NNLS_MOST], out[PB_NNLS_MOST]; // out: held by the others
} problem;

static void remove_at(problem *p, size_t k)
{
    p->is_in[p->in[k]] = false;
    p->n_in--;
    memmove(p->in + k, p->in + k + 1, (p->n_in - k) * sizeof *p->in);
}

// s = the solution with the columns that are in alone, by Cholesky. False: the last of them is no
// more than a combination of those before it.
static bool solve(const problem *p, double *s)
{
    enum { M = PB_NNLS_MOST };
    double L[M][M];
    for (size_t i = 0; i < p->n_in; i++) {
        for (size_t j = 0; j <= i; j++) {
            double v = p->G[p->in[i]][p->in[j]];
            for (size_t k = 0; k < j; k++)
                v -= L[i][k] * L[j][k];
            if (i == j && v < 1e-11)
                return false;
            L[i][j] = i == j ? sqrt(v) : v / L[j][j];
        }
        s[i] = p->h[p->in[i]];
        for (size_t k = 0; k < i; k++)
            s[i] -= L[i][k] * s[k];
        s[i] /= L[i][i];
    }
    for (size_t i = p->n_in; i-- > 0;) {
        for (size_t k = i + 1; k < p->n_in; k++)
            s[i] -= L[k][i] * s[k];
        s[i] /= L[i][i];
    }
    return true;
}

// The column outside along which the error falls fastest; n: none.
static size_t steepest(const problem *p)
{
    size_t best = p->n;
    double most = 1e-12;
    for (size_t j = 0; j < p->n; j++) {
        double w = p->h[j];
        if (p->is_in[j] || p->out[j])
            continue;
        for (size_t k = 0; k < p->n_in; k++)
            w -= p->G[j][p->in[k]] * p->x[p->in[k]];
        if (w > most) {
            most = w;
            best = j;
        }
    }
    return best;
}

// Goes from x towards s until the first coefficient becomes zero, and drops it. True: at s.
static bool go(problem *p, const double *s)
{
    double part = 1;
    size_t first = p->n_in;
    for (size_t k = 0; k < p->n_in; k++) {
        double x = p->x[p->in[k]];
        if (s[k] <= 0 && x / (x - s[k]) < part) {
            part = x / (x - s[k]);
            first = k;
        }
    }
    for (size_t k = 0; k < p->n_in; k++)
        p->x[p->in[k]] += part * (s[k] - p->x[p->in[k]]);
    if (first == p->n_in)
        return true;
    p->x[p->in[first]] = 0;
    remove_at(p, first);
    memset(p->out, 0, sizeof p->out); // what the dropped one held, it holds no longer
    return false;
}

void pb_nnls(double *x, const double *G, const double *h, size_t n)
{
    problem p = {.n = n};
    double length[PB_NNLS_MOST], s[PB_NNLS_MOST], size = 0;
    for (size_t i = 0; i < n; i++) {
        length[i] = sqrt(fmax(G[i * n + i], 0));
        size = fmax(size, length[i] > 0 ? fabs(h[i]) / length[i] : 0);
    }
    for (size_t i = 0; i < n && size > 0; i++) {
        p.is_in[i] = !(length[i] > 0); // a column of zeros keeps the coefficient 0
        p.h[i] = p.is_in[i] ? 0 : h[i] / length[i] / size;
        for (size_t j = 0; j < n; j++)
            p.G[i][j] = length[i] > 0 && length[j] > 0 ? G[i * n + j] / length[i] / length[j] : 0;
    }
    for (size_t round = 0, j; round < 20 * n && (j = steepest(&p)) < n; round++) {
        p.in[p.n_in++] = j;
        p.is_in[j] = true;
        bool done = false, first = true;
        while (!done && p.n_in) {
            if (!solve(&p, s) || (first && s[p.n_in - 1] <= 0)) {
                remove_at(&p, p.n_in - 1);
                p.out[j] = true;
                break;
            }
            first = false;
            done = go(&p, s);
        }
    }
    for (size_t i = 0; i < n; i++)
        x[i] = p.x[i] > 0 ? size * p.x[i] / length[i] : 0;
}
