// What stands in for cuBLAS: the products that are asked for, where the driver computes.
#include <stdlib.h>
#include "products.h"

void count_work(const char *);
int computes(void);
void finish_stream(void *);

// A handle holds its stream; what is computed at once comes after all that was asked of that.
int cublasCreate_v2(void ***handle) { return *handle = calloc(1, sizeof(void *)), 0; }
int cublasSetStream_v2(void **handle, void *stream) { return *handle = stream, 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { return *mode = 0, 0; }

int cublasSgemmStridedBatched(void **handle, int a_turned, int b_turned, int m, int n, int k, const float *alpha, const float *a, int lda,
                              long long a_apart, const float *b, int ldb, long long b_apart, const float *beta, float *c, int ldc,
                              long long c_apart, int count) {
    count_work("cublasSgemmStridedBatched");
    if (!computes()) return 0;
    finish_stream(*handle);
    products(a_turned, b_turned, m, n, k, *alpha, a, lda, a_apart, b, ldb, b_apart, *beta, c, ldc, c_apart, count);
    return 0;
}

// Of elements of type 0, f32; others are not supported (15).
int cublasGemmStridedBatchedEx(void **handle, int a_turned, int b_turned, int m, int n, int k, const void *alpha, const void *a, int a_type,
                               int lda, long long a_apart, const void *b, int b_type, int ldb, long long b_apart, const void *beta, void *c,
                               int c_type, int ldc, long long c_apart, int count, int computed_in, int algorithm) {
    count_work("cublasGemmStridedBatchedEx");
    if (!computes()) return 0;
    if (a_type || b_type || c_type) return 15;
    finish_stream(*handle);
    products(a_turned, b_turned, m, n, k, *(const float *)alpha, a, lda, a_apart, b, ldb, b_apart, *(const float *)beta, c, ldc, c_apart,
                 count);
    return 0;
}
