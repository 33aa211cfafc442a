// A stand-in for libcuda.so.1 that counts what it is asked for: every call succeeds at once, memory is the host's, and kernels do
// nothing, or what they should where KERNELS names libraries of them (`stand_in.py` builds all of these, and what stands in for cuBLAS,
// cuDNN and cuRAND).
//
// COUNTS names the file into which, at exit, goes a line `calls bytes name` for each kind of call. FAIL=WHAT:CODE:CALLS (init, allocate,
// launch or module) makes that kind of call give the error CODE once so many of them have succeeded; FAIL=allocate:2:64M from allocations of
// more bytes than that. KERNELS: paths of shared libraries with a function `run_NAME(arguments, grid, block)` for each kernel NAME, and
// the sizes of its arguments up to a 0; then memory is full of NaN until something is written to it, and streams are streams (`streams.h`).
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "streams.h"

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

// Who is told of calls, as CUPTI tells of them: what begins (0) and ends (1), and the function's name.
typedef struct {
    int site;
    const char *function;
} Call;
static void (*listener)(void *, int, unsigned, const Call *);

void tell_calls_to(void *whom) { *(void **)&listener = whom; }

static void count_launch(const char *name) {
    count(name, 0);
    if (!listener) return;
    listener(NULL, 1, 0, &(Call){0, "cuLaunchKernel"});
    listener(NULL, 1, 0, &(Call){1, "cuLaunchKernel"});
}

// Of a library, as if it were one kernel.
void count_work(const char *name) { count_launch(name); }

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
int cuStreamCreate(Stream **stream, unsigned flags) { return *stream = new_stream(), 0; }
int cuStreamDestroy_v2(Stream *stream) { return finish(stream), 0; }
int cuStreamSynchronize(Stream *stream) { return count("synchronize", 0), finish(stream), 0; }
int cuCtxSynchronize(void) { return count("synchronize", 0), finish(NULL), 0; }
int cuStreamIsCapturing(Stream *stream, int *status) { return *status = 0, 0; }
void finish_stream(void *stream) { finish(stream); }

typedef struct {
    Stream *stream;
    unsigned long asked;
} Event;

int cuEventCreate(Event **event, unsigned flags) { return count("event", 0), *event = calloc(1, sizeof(Event)), 0; }
int cuEventDestroy_v2(Event *event) { return free(event), 0; }
int cuEventRecord(Event *event, Stream *stream) {
    pthread_mutex_lock(&working);
    *event = (Event){stream, stream ? stream->asked : 0};
    pthread_mutex_unlock(&working);
    return 0;
}
int cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    if (event->stream) ask(stream, (Piece){.work = WAIT, .other = event->stream, .until = event->asked});
    return 0;
}
int cuEventSynchronize(Event *event) {
    pthread_mutex_lock(&working);
    if (event->stream) do_until(event->stream, event->asked);
    pthread_mutex_unlock(&working);
    return 0;
}

static int allocate(Address *address, size_t bytes) {
    int code = failure("allocate", bytes);
    if (code) return code;
    count("allocate", bytes);
    void *memory = computes() ? malloc(bytes + 256) : calloc(1, bytes + 256);
    if (memory && computes()) memset(memory, 0xff, bytes);
    *address = (Address)memory;
    return memory ? 0 : 2;
}
int cuMemAllocAsync(Address *address, size_t bytes, Stream *stream) { return allocate(address, bytes); }
int cuMemAlloc_v2(Address *address, size_t bytes) { return allocate(address, bytes); }
int cuMemFreeAsync(Address address, Stream *stream) {
    if (computes()) ask(stream, (Piece){.work = FREE, .to = (void *)address});
    else free((void *)address);
    return 0;
}
int cuMemFree_v2(Address address) { return finish(NULL), free((void *)address), 0; }

// Page-locked memory of the host.
static struct {
    char *start;
    size_t bytes;
} locked[MOST];

int cuMemHostAlloc(void **start, size_t bytes, unsigned flags) {
    Address address;
    int code = allocate(&address, bytes);
    if (code) return code;
    count("lock pages", bytes);
    *start = (void *)address;
    pthread_mutex_lock(&counting);
    int i = 0;
    while (locked[i].start) ++i;
    if (i == MOST) abort();
    locked[i].start = *start;
    locked[i].bytes = bytes;
    pthread_mutex_unlock(&counting);
    return 0;
}
int cuMemFreeHost(void *start) {
    pthread_mutex_lock(&counting);
    for (int i = 0; i < MOST; ++i) {
        if (locked[i].start == start) locked[i].start = NULL;
    }
    pthread_mutex_unlock(&counting);
    if (computes()) memset(start, 0xff, malloc_usable_size(start));
    return free(start), 0;
}
static int is_locked(const void *at) {
    int found = 0;
    pthread_mutex_lock(&counting);
    for (int i = 0; i < MOST && !found; ++i) {
        found = locked[i].start && (char *)at >= locked[i].start && (char *)at < locked[i].start + locked[i].bytes;
    }
    pthread_mutex_unlock(&counting);
    return found;
}

static void copy_now(void *to, const void *from, size_t bytes, Stream *stream) {
    if (computes()) finish(stream);
    memmove(to, from, bytes);
}
static void copy_later(void *to, const void *from, size_t bytes, Stream *stream) {
    if (computes()) ask(stream, (Piece){.work = COPY, .to = to, .from = from, .bytes = bytes});
    else memmove(to, from, bytes);
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Stream *stream) {
    count("copy to the device", bytes);
    if (!computes() || is_locked(from)) return copy_later((void *)to, from, bytes, stream), 0;
    // What is not locked is read before the call returns.
    void **kept = malloc(sizeof *kept);
    *kept = memcpy(malloc(bytes + 1), from, bytes);
    return ask(stream, (Piece){.work = COPY, .to = (void *)to, .from = *kept, .bytes = bytes, .count = 1, .arguments = kept}), 0;
}
int cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) {
    return count("copy to the device", bytes), copy_now((void *)to, from, bytes, NULL), 0;
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Stream *stream) {
    count("copy to the host", bytes);
    if (is_locked(to)) copy_later(to, (void *)from, bytes, stream);
    else copy_now(to, (void *)from, bytes, stream);
    return 0;
}
int cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) {
    return count("copy to the host", bytes), copy_now(to, (void *)from, bytes, NULL), 0;
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream *stream) {
    return count("copy on the device", bytes), copy_later((void *)to, (void *)from, bytes, stream), 0;
}
int cuMemcpyDtoD_v2(Address to, Address from, size_t bytes) {
    return count("copy on the device", bytes), copy_now((void *)to, (void *)from, bytes, NULL), 0;
}
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream *stream) {
    count("fill", bytes);
    if (computes()) ask(stream, (Piece){.work = FILL, .to = (void *)to, .bytes = bytes, .value = value});
    else memset((void *)to, value, bytes);
    return 0;
}

int cuModuleLoadData(void **module, const void *image) { return *module = (void *)4, failure("module", 0); }

typedef struct {
    char name[NAME];
    void (*run)(void **arguments, const unsigned *grid, const unsigned *block);
    const unsigned *sizes;
} Kernel;

int cuModuleGetFunction(void **function, void *module, const char *name) {
    Kernel *kernel = calloc(1, sizeof *kernel);
    for (int i = 0; i < libraries && !kernel->run; ++i) {
        snprintf(kernel->name, NAME, "run_%s", name);
        *(void **)&kernel->run = dlsym(kernels[i], kernel->name);
        snprintf(kernel->name, NAME, "sizes_%s", name);
        kernel->sizes = dlsym(kernels[i], kernel->name);
    }
    snprintf(kernel->name, NAME, "kernel %s", name);
    if (computes() && !kernel->run) fprintf(stderr, "no %s among the libraries of kernels\n", kernel->name);
    return *function = kernel, computes() && !kernel->run ? 500 : 0;
}
int cuLaunchKernel(Kernel *kernel, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   Stream *stream, void **arguments, void **extra) {
    count_launch(kernel->name);
    int code = failure("launch", 0);
    if (code || !kernel->run) return code;
    Piece piece = {.work = KERNEL, .run = kernel->run, .grid = {x, y, z}, .block = {bx, by, bz}};
    while (kernel->sizes[piece.count]) ++piece.count;
    piece.arguments = malloc(sizeof(void *) * (piece.count + 1));
    for (unsigned i = 0; i < piece.count; ++i) {
        piece.arguments[i] = memcpy(malloc(kernel->sizes[i]), arguments[i], kernel->sizes[i]);
    }
    ask(stream, piece);
    return 0;
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
