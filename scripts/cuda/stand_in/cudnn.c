// What stands in for cuDNN: convolutions by their definition, where the driver computes.
#include "products.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void count_work(const char *);
int computes(void);
void finish_stream(void *);

// A handle holds its stream, as that of cuBLAS.
int cudnnCreate(void ***handle) { return *handle = calloc(1, sizeof(void *)), 0; }
int cudnnSetStream(void **handle, void *stream) { return *handle = stream, 0; }
size_t cudnnGetVersion(void) { return 91900; }

// Sizes of a tensor or a filter; padding, stride and groups of a convolution.
typedef struct {
    int size[4];
} Descriptor;

static int made(void **descriptor) { return *descriptor = calloc(1, sizeof(Descriptor)), 0; }
int cudnnCreateTensorDescriptor(void **descriptor) { return made(descriptor); }
int cudnnCreateFilterDescriptor(void **descriptor) { return made(descriptor); }
int cudnnCreateConvolutionDescriptor(void **descriptor) { return made(descriptor); }
int cudnnDestroyTensorDescriptor(void *descriptor) { return free(descriptor), 0; }
int cudnnDestroyFilterDescriptor(void *descriptor) { return free(descriptor), 0; }
int cudnnDestroyConvolutionDescriptor(void *descriptor) { return free(descriptor), 0; }

static int set(Descriptor *to, int a, int b, int c, int d) { return *to = (Descriptor){{a, b, c, d}}, 0; }
int cudnnSetTensor4dDescriptor(void *to, int format, int type, int n, int c, int h, int w) { return set(to, n, c, h, w); }
int cudnnSetFilter4dDescriptor(void *to, int type, int format, int k, int c, int h, int w) { return set(to, k, c, h, w); }
int cudnnSetConvolution2dDescriptor(Descriptor *to, int top, int left, int step_h, int step_w, int dilation_h, int dilation_w, int mode, int type) {
    return step_h != step_w || dilation_h != 1 || dilation_w != 1 ? 9 : set(to, top, left, step_h, 1);
}
int cudnnSetConvolutionGroupCount(Descriptor *to, int groups) { return to->size[3] = groups, 0; }

#define NO_LIST(WAY)                                                                                                               \
    int cudnnGetConvolution##WAY##Algorithm_v7(void *h, void *a, void *b, void *c, void *d, int most, int *found, void *list) {    \
        return *found = 0, 0;                                                                                                      \
    }                                                                                                                              \
    int cudnnGetConvolution##WAY##WorkspaceSize(void *h, void *a, void *b, void *c, void *d, int algorithm, size_t *bytes) {       \
        return *bytes = 0, 0;                                                                                                      \
    }
NO_LIST(Forward)
NO_LIST(BackwardData)
NO_LIST(BackwardFilter)

typedef struct {
    int images, c_in, h, w, c_out, of_group, k_h, k_w, out_h, out_w, top, left, stride, groups;
} Sizes;

static Sizes sizes_of(const Descriptor *x, const Descriptor *w, const Descriptor *y, const Descriptor *conv) {
    const int *x_size = x->size, *w_size = w->size, *y_size = y->size, *of = conv->size;
    return (Sizes){x_size[0], x_size[1], x_size[2], x_size[3], w_size[0], w_size[1], w_size[2], w_size[3], y_size[2], y_size[3],
                   of[0], of[1], of[2], of[3]};
}

enum Way { FORWARD, TO_X, TO_W };

// columns[c, a, b, i, j] = x[c, s i + a - top, s j + b - left] for the channels of one group; or what that gives back to x, added up.
static void unfold(float *x, float *columns, const Sizes *s, int back) {
    for (int c = 0; c < s->of_group; ++c) for (int a = 0; a < s->k_h; ++a) for (int b = 0; b < s->k_w; ++b) {
        for (int i = 0; i < s->out_h; ++i) {
            int row = i * s->stride + a - s->top;
            for (int j = 0; j < s->out_w; ++j, ++columns) {
                int column = j * s->stride + b - s->left, inside = row >= 0 && row < s->h && column >= 0 && column < s->w;
                float *pixel = x + ((long)c * s->h + row) * s->w + column;
                if (!back) *columns = inside ? *pixel : 0;
                else if (inside) *pixel += *columns;
            }
        }
    }
}

static int convolve(void **handle, float *x, float *w, float *y, Sizes s, enum Way way, const float *alpha, const float *beta) {
    if (!computes()) return 0;
    if (*alpha != 1 || *beta != 0) return 9;
    finish_stream(*handle);
    int filters = s.c_out / s.groups, pixels = s.out_h * s.out_w, terms = s.of_group * s.k_h * s.k_w;
    long of_x = (long)s.of_group * s.h * s.w, of_y = (long)filters * pixels, of_w = (long)filters * terms;
    if (way == TO_X) memset(x, 0, sizeof(float) * s.images * s.groups * of_x);
    if (way == TO_W) memset(w, 0, sizeof(float) * s.groups * of_w);
    // Images have results of their own, but of weights.
    _Pragma("omp parallel for if (way != TO_W)") for (int n = 0; n < s.images; ++n) {
        float *columns = malloc(sizeof(float) * pixels * terms);
        for (int g = 0; g < s.groups; ++g) {
            float *from = x + (n * s.groups + g) * of_x, *by = w + g * of_w, *to = y + (n * s.groups + g) * of_y;
            if (way != TO_X) unfold(from, columns, &s, 0);
            if (way == FORWARD) products(0, 0, pixels, filters, terms, 1, columns, pixels, 0, by, terms, 0, 0, to, pixels, 0, 1);
            if (way == TO_W) products(1, 0, terms, filters, pixels, 1, columns, pixels, 0, to, pixels, 0, 1, by, terms, 0, 1);
            if (way == TO_X) products(0, 1, pixels, terms, filters, 1, to, pixels, 0, by, terms, 0, 0, columns, pixels, 0, 1);
            if (way == TO_X) unfold(from, columns, &s, 1);
        }
        free(columns);
    }
    return 0;
}

int cudnnConvolutionForward(void **handle, const float *alpha, void *x_desc, float *x, void *w_desc, float *w, void *conv, int algorithm,
                            void *workspace, size_t bytes, const float *beta, void *y_desc, float *y) {
    count_work("cudnnConvolutionForward");
    return convolve(handle, x, w, y, sizes_of(x_desc, w_desc, y_desc, conv), FORWARD, alpha, beta);
}
int cudnnConvolutionBackwardData(void **handle, const float *alpha, void *w_desc, float *w, void *y_desc, float *y, void *conv, int algorithm,
                                 void *workspace, size_t bytes, const float *beta, void *x_desc, float *x) {
    count_work("cudnnConvolutionBackwardData");
    return convolve(handle, x, w, y, sizes_of(x_desc, w_desc, y_desc, conv), TO_X, alpha, beta);
}
int cudnnConvolutionBackwardFilter(void **handle, const float *alpha, void *x_desc, float *x, void *y_desc, float *y, void *conv, int algorithm,
                                   void *workspace, size_t bytes, const float *beta, void *w_desc, float *w) {
    count_work("cudnnConvolutionBackwardFilter");
    return convolve(handle, x, w, y, sizes_of(x_desc, w_desc, y_desc, conv), TO_W, alpha, beta);
}
