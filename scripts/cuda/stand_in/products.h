// C = alpha op(A) op(B) + beta C for `count` matrices of columns, `apart` values from one to the next; as cuBLAS names what it is given.
#pragma once

#define PRODUCTS(NAME, REAL)                                                                                                          \
    static void NAME(int a_turned, int b_turned, int m, int n, int k, REAL alpha, const REAL *a, int lda, long a_apart, const REAL *b, \
                     int ldb, long b_apart, REAL beta, REAL *c, int ldc, long c_apart, int count) {                                   \
        _Pragma("omp parallel for collapse(2)") for (int at = 0; at < count; ++at) for (int j = 0; j < n; ++j) {                      \
            const REAL *of_a = a + at * a_apart, *of_b = b + at * b_apart;                                                            \
            REAL *to = c + at * c_apart + (long)j * ldc;                                                                              \
            for (int i = 0; i < m; ++i) to[i] = beta == 0 ? 0 : beta * to[i];                                                         \
            if (a_turned) {                                                                                                           \
                for (int i = 0; i < m; ++i) {                                                                                         \
                    REAL sum = 0;                                                                                                     \
                    long step = b_turned ? ldb : 1, start = b_turned ? j : (long)j * ldb;                                             \
                    _Pragma("omp simd reduction(+ : sum)") for (int l = 0; l < k; ++l) {                                              \
                        sum += of_a[(long)i * lda + l] * of_b[start + l * step];                                                      \
                    }                                                                                                                 \
                    to[i] += alpha * sum;                                                                                             \
                }                                                                                                                     \
                continue;                                                                                                             \
            }                                                                                                                         \
            REAL factor[4];                                                                                                           \
            for (int l = 0; l < k; l += 4) {                                                                                          \
                int terms = k - l < 4 ? k - l : 4;                                                                                    \
                const REAL *from = of_a + (long)l * lda;                                                                              \
                for (int t = 0; t < terms; ++t) factor[t] = alpha * (b_turned ? of_b[(long)(l + t) * ldb + j] : of_b[(long)j * ldb + l + t]); \
                if (terms == 4) {                                                                                                     \
                    for (int i = 0; i < m; ++i) {                                                                                     \
                        to[i] += factor[0] * from[i] + factor[1] * from[lda + i] + factor[2] * from[2l * lda + i] + factor[3] * from[3l * lda + i]; \
                    }                                                                                                                 \
                } else for (int t = 0; t < terms; ++t) {                                                                              \
                    for (int i = 0; i < m; ++i) to[i] += factor[t] * from[(long)t * lda + i];                                         \
                }                                                                                                                     \
            }                                                                                                                         \
        }                                                                                                                             \
    }
