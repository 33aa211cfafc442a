// A stand-in for libcuda.so.1 that counts what it is asked for: every call succeeds at once, memory is the host's, and kernels do
// nothing. `launches.py` builds it, together with empty functions of the driver and of cuBLAS, cuDNN and cuRAND that count too.
//
// COUNTS names the file into which, at exit, goes a line `calls bytes name` for each kind of call.
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

static void count(const char *name, unsigned long bytes) {
    int i = 0;
    while (i < kinds && strcmp(counted[i].name, name)) ++i;
    if (i == kinds) {
        if (kinds == MOST) abort();
        strncpy(counted[kinds++].name, name, NAME - 1);
    }
    ++counted[i].calls;
    counted[i].bytes += bytes;
}

void count_call(const char *name) { count(name, 0); }

static void report(void) {
    const char *path = getenv("COUNTS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    for (int i = 0; i < kinds; ++i) fprintf(file, "%lu %lu %s\n", counted[i].calls, counted[i].bytes, counted[i].name);
    fclose(file);
}

__attribute__((constructor)) static void start(void) { atexit(report); }

typedef uint64_t Address;

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int index) { return *device = 0, index ? 101 : 0; }
int cuDeviceGetName(char *name, int len, int device) { return strncpy(name, "a device that only counts", len), 0; }
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
    count("allocate", bytes);
    *address = (Address)calloc(1, bytes + 256);
    return *address ? 0 : 2;
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

int cuModuleLoadData(void **module, const void *image) { return *module = (void *)4, 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return *function = strdup(name), 0; }
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **arguments, void **extra) {
    char name[NAME];
    snprintf(name, NAME, "kernel %s", (const char *)function);
    return count(name, 0), 0;
}
int cuGetErrorName(int error, const char **text) { return *text = "error", 0; }
int cuGetErrorString(int error, const char **text) { return *text = "an error", 0; }
