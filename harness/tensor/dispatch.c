// Chooses the kernels for this processor, and tells BLIS which of its own to use.
//
// Debian's BLIS 0.9 does not know recent processors and falls back to its AVX2 kernels at half the
// speed; BLIS_ARCH_TYPE, set before its first call, selects the AVX-512 ones.
#include "tensor/gemm.h"
#include "tensor/kernels/kernels.h"

#include <blis.h>
#include <stdlib.h>
#include <string.h>

extern const pb_kernels pb_kernels_portable, pb_kernels_avx2, pb_kernels_avx512;

static const pb_kernels *const known[] = {
#ifdef PB_HAVE_AVX512
    &pb_kernels_avx512,
#endif
#ifdef PB_HAVE_AVX2
    &pb_kernels_avx2,
#endif
    &pb_kernels_portable,
};

static int usable(const pb_kernels *k)
{
#if defined(__x86_64__)
    if (!strcmp(k->isa, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(k->isa, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return !strcmp(k->isa, "portable");
}

const pb_kernels *pb_kernels_find(const char *isa)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i]->isa, isa) && usable(known[i]))
            return known[i];
    return NULL;
}

const pb_kernels *pb_kernels_get(void)
{
    static const pb_kernels *chosen;
    if (chosen)
        return chosen;
    const char *want = getenv("PB_ISA");
    const pb_kernels *k = want ? pb_kernels_find(want) : NULL;
    for (size_t i = 0; !k; i++)
        if (usable(known[i]))
            k = known[i];
    return chosen = k;
}

static const char *blis_kernel(void)
{
    static const char *name;
    if (!name) {
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
            setenv("BLIS_ARCH_TYPE", "skx", 0);
#endif
        bli_init();
        name = bli_arch_string(bli_arch_query_id());
    }
    return name;
}

const char *pb_gemm_kernel(void)
{
    return blis_kernel();
}

static void block(bool ta, bool tb, size_t m, size_t n, size_t k, real alpha, const real *a,
                  size_t lda, const real *b, size_t ldb, real beta, real *c, size_t ldc)
{
    rntm_t rt;
    bli_rntm_init(&rt);
    bli_rntm_set_num_threads(1, &rt);
    // The path for small operands reads a transposed one in place and takes 1.2 to 1.8 times as
    // long as packing it.
    bli_rntm_disable_l3_sup(&rt);
#ifdef PB_DOUBLE
    bli_dgemm_ex(
#else
    bli_sgemm_ex(
#endif
        ta ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, tb ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, (dim_t)m,
        (dim_t)n, (dim_t)k, &alpha, (real *)a, (inc_t)lda, 1, (real *)b, (inc_t)ldb, 1, &beta, c,
        (inc_t)ldc, 1, NULL, &rt);
}

void pb_gemm(bool ta, bool tb, size_t m, size_t n, size_t k, real alpha, const real *a, size_t lda,
             const real *b, size_t ldb, real beta, real *c, size_t ldc, int threads)
{
    // BLIS runs on one thread per block of rows: its own threads would wait at spinning barriers,
    // and blocks of a fixed size give the same result for any number of threads.
    enum { ROWS = 128 };
    blis_kernel();
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (m * n * k > 200000)
    for (size_t i = 0; i < m; i += ROWS)
        block(ta, tb, m - i < ROWS ? m - i : ROWS, n, k, alpha, ta ? a + i : a + i * lda, lda, b,
              ldb, beta, c + i * ldc, ldc);
}
