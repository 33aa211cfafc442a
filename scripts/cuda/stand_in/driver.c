// A stand-in for libcuda.so.1 that counts what it is asked for: every call succeeds at once, memory is the host's, and kernels do
// nothing, or what they should where KERNELS names libraries of them (`stand_in.py` builds all of these, and what stands in for cuBLAS,
// cuDNN and cuRAND).
//
// COUNTS names the file into which, at exit, goes a line `calls bytes name` for each kind of call. FAIL=WHAT:CODE:CALLS (init, allocate,
// launch or module) makes that kind of call give the error CODE once so many of them have succeeded; FAIL=allocate:2:64M from allocations of
// more bytes than that. KERNELS: paths of shared libraries with a function `run_NAME(arguments, grid, block)` for each kernel NAME; then
// memory is full of NaN until something is written to it.
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 4096
#define NAME 96
static struct {
    char name[NAME];
    unsigned long calls, bytes;
} counted[MOST];
static int kinds;

static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

static void count(const char *name, unsigned long bytes) {
    pthread_mutex_lock(&counting);
    int i = 0;
    while (i < kinds && strcmp(counted[i].name, name)) ++i;
    if (i == kinds) {
        if (kinds == MOST) abort();
        strncpy(counted[kinds++].name, name, NAME - 1);
    }
    ++counted[i].calls;
    counted[i].bytes += bytes;
    pthread_mutex_unlock(&counting);
}

void count_call(const char *name) { count(name, 0); }

static void report(void) {
    const char *path = getenv("COUNTS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    for (int i = 0; i < kinds; ++i) fprintf(file, "%lu %lu %s\n", counted[i].calls, counted[i].bytes, counted[i].name);
    fclose(file);
}

static void *kernels[MOST];
static int libraries;

// Whether kernels, and the functions of cuBLAS and cuDNN, do what they should.
int computes(void) { return libraries > 0; }

__attribute__((constructor)) static void start(void) {
    atexit(report);
    const char *paths = getenv("KERNELS");
    char *list = strdup(paths ? paths : ""), *rest = list;
    for (char *path; (path = strtok_r(rest, ":", &rest));) {
        if (libraries == MOST || !(kernels[libraries++] = dlopen(path, RTLD_NOW | RTLD_LOCAL))) {
            fprintf(stderr, "%s\n", dlerror());
            _Exit(1);
        }
    }
    free(list);
}

typedef uint64_t Address;

// The error that a call of this kind is to give, 0 for none.
static int failure(const char *what, size_t bytes) {
    static unsigned long calls[4];
    static const char *kinds_that_fail[4] = {"init", "allocate", "launch", "module"};
    const char *fail = getenv("FAIL");
    size_t len = strlen(what);
    if (!fail || strncmp(fail, what, len) || fail[len] != ':') return 0;
    int code = 0;
    unsigned long after = 0;
    char unit = 0;
    sscanf(fail + len + 1, "%d:%lu%c", &code, &after, &unit);
    if (unit == 'M') return bytes > after << 20 ? code : 0;
    for (int i = 0; i < 4; ++i) {
        if (!strcmp(kinds_that_fail[i], what)) return calls[i]++ < after ? 0 : code;
    }
    return 0;
}

int cuInit(unsigned flags) { return failure("init", 0); }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int index) { return *device = 0, index ? 101 : 0; }
int cuDeviceGetName(char *name, int len, int device) {
    return strncpy(name, computes() ? "none: the host computes what it would" : "none: a device that only counts", len), 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    // Compute capability 9.0, 132 multiprocessors, blocks of 1024 threads; the rest can be done.
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : attribute == 1 ? 1024 : 1;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = (void *)1, 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxGetCurrent(void **context) { return *context = (void *)1, 0; }
int cuCtxSetCurrent(void *context) { return 0; }
int cuDeviceGetDefaultMemPool(void **pool, int device) { return *pool = (void *)1, 0; }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { return *free_bytes = 79ul << 30, *total = 80ul << 30, 0; }
int cuStreamCreate(void **stream, unsigned flags) { return *stream = (void *)2, 0; }
int cuStreamSynchronize(void *stream) { return count("synchronize", 0), 0; }
int cuStreamIsCapturing(void *stream, int *status) { return *status = 0, 0; }
int cuEventCreate(void **event, unsigned flags) { return count("event", 0), *event = (void *)3, 0; }

static int allocate(Address *address, size_t bytes) {
    int code = failure("allocate", bytes);
    if (code) return code;
    count("allocate", bytes);
    void *memory = computes() ? malloc(bytes + 256) : calloc(1, bytes + 256);
    if (memory && computes()) memset(memory, 0xff, bytes);
    *address = (Address)memory;
    return memory ? 0 : 2;
}
int cuMemAllocAsync(Address *address, size_t bytes, void *stream) { return allocate(address, bytes); }
int cuMemAlloc_v2(Address *address, size_t bytes) { return allocate(address, bytes); }
int cuMemFreeAsync(Address address, void *stream) { return free((void *)address), 0; }
int cuMemFree_v2(Address address) { return free((void *)address), 0; }

static int copied(const char *how, void *to, const void *from, size_t bytes) {
    return count(how, bytes), memmove(to, from, bytes), 0;
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
    return copied("copy to the device", (void *)to, from, bytes);
}
int cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) { return copied("copy to the device", (void *)to, from, bytes); }
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
    return copied("copy to the host", to, (void *)from, bytes);
}
int cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) { return copied("copy to the host", to, (void *)from, bytes); }
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
    return copied("copy on the device", (void *)to, (void *)from, bytes);
}
int cuMemcpyDtoD_v2(Address to, Address from, size_t bytes) {
    return copied("copy on the device", (void *)to, (void *)from, bytes);
}
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *stream) {
    return count("fill", bytes), memset((void *)to, value, bytes), 0;
}

int cuModuleLoadData(void **module, const void *image) { return *module = (void *)4, failure("module", 0); }

typedef struct {
    char name[NAME];
    void (*run)(void **arguments, const unsigned *grid, const unsigned *block);
} Kernel;

int cuModuleGetFunction(void **function, void *module, const char *name) {
    Kernel *kernel = calloc(1, sizeof *kernel);
    snprintf(kernel->name, NAME, "run_%s", name);
    for (int i = 0; i < libraries && !kernel->run; ++i) *(void **)&kernel->run = dlsym(kernels[i], kernel->name);
    snprintf(kernel->name, NAME, "kernel %s", name);
    if (computes() && !kernel->run) fprintf(stderr, "no %s among the libraries of kernels\n", kernel->name);
    return *function = kernel, computes() && !kernel->run ? 500 : 0;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **arguments, void **extra) {
    Kernel *kernel = function;
    count(kernel->name, 0);
    int code = failure("launch", 0);
    if (!code && kernel->run) kernel->run(arguments, (unsigned[]){x, y, z}, (unsigned[]){bx, by, bz});
    return code;
}
int cuGetErrorName(int error, const char **text) { return *text = "CUDA_ERROR", 0; }
int cuGetErrorString(int error, const char **text) {
    *text = error == 2 ? "out of memory" : error == 803 ? "system has unsupported display driver / cuda driver combination"
            : error == 100 ? "no CUDA-capable device is detected" : error == 101 ? "invalid device ordinal"
            : error == 500 ? "named symbol not found"
            : error == 222 ? "the provided PTX was compiled with an unsupported toolchain."
            : error == 700 ? "an illegal memory access was encountered" : "an error";
    return 0;
}
