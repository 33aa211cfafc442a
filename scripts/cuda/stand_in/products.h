// C = alpha op(A) op(B) + beta C for `count` matrices of columns, `apart` values from one to the next; as cuBLAS names what it is given.
#pragma once

static void products(int a_turned, int b_turned, int m, int n, int k, float alpha, const float *a, int lda, long a_apart, const float *b,
                     int ldb, long b_apart, float beta, float *c, int ldc, long c_apart, int count) {
    _Pragma("omp parallel for collapse(2)") for (int at = 0; at < count; ++at) for (int j = 0; j < n; ++j) {
        const float *of_a = a + at * a_apart, *of_b = b + at * b_apart;
        float *to = c + at * c_apart + (long)j * ldc;
        for (int i = 0; i < m; ++i) to[i] = beta == 0 ? 0 : beta * to[i];
        // Elements of B that column j of C needs, in the order of the sum.
        long step = b_turned ? ldb : 1, start = b_turned ? j : (long)j * ldb;
        if (a_turned) {
            for (int i = 0; i < m; ++i) {
                float sum = 0;
                _Pragma("omp simd reduction(+ : sum)") for (int l = 0; l < k; ++l) {
                    sum += of_a[(long)i * lda + l] * of_b[start + l * step];
                }
                to[i] += alpha * sum;
            }
            continue;
        }
        // Four at a time: C is read and written less often.
        for (int l = 0; l < k; l += 4) {
            int terms = k - l < 4 ? k - l : 4;
            float factor[4];
            const float *from = of_a + (long)l * lda;
            for (int t = 0; t < terms; ++t) factor[t] = alpha * of_b[start + (l + t) * step];
            if (terms == 4) {
                for (int i = 0; i < m; ++i) {
                    to[i] += factor[0] * from[i] + factor[1] * from[lda + i] + factor[2] * from[2l * lda + i] + factor[3] * from[3l * lda + i];
                }
            } else for (int t = 0; t < terms; ++t) {
                for (int i = 0; i < m; ++i) to[i] += factor[t] * from[(long)t * lda + i];
            }
        }
    }
}
