/* A CUDA runtime without a GPU: "device memory" is the heap, and what is put into a stream is done when the stream is
 * waited for and not before, so that nobody sees results he has not waited for. It refuses what CUDA refuses: copies
 * beyond an allocation, from memory that is not pinned, on streams that do not exist. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX 4096
#define INVALID 1

typedef void (*work_t)(void);
enum kind { FREE, DEVICE, PINNED, STREAM };
struct block { enum kind kind; char *at; size_t size; };
struct step { void *stream; void *to; const void *from; size_t size; work_t work; };

static struct block blocks[MAX];
static struct step steps[MAX];
static int step_count, failure_code, driver = 12080, runtime = 12060, gpus = 1;
static char failing_call[64], history[1 << 16];

static int begin(const char *call) {
    size_t used = strlen(history);
    if (used + strlen(call) + 2 < sizeof history) sprintf(history + used, "%s ", call);
    return strcmp(failing_call, call) == 0 ? failure_code : 0;
}
#define BEGIN do { int code = begin(__func__); if (code) return code; } while (0)

static int take(enum kind kind, void **at, size_t size) {
    for (int i = 0; i < MAX; i++)
        if (blocks[i].kind == FREE) {
            blocks[i] = (struct block){kind, malloc(size), size};
            memset(blocks[i].at, 0xA5, size);
            *at = blocks[i].at;
            return 0;
        }
    return 2; /* cudaErrorMemoryAllocation */
}
static struct block *holding(enum kind kind, const void *at, size_t size) {
    for (int i = 0; i < MAX; i++)
        if (blocks[i].kind == kind && (char *)at >= blocks[i].at && (char *)at + size <= blocks[i].at + blocks[i].size)
            return &blocks[i];
    return NULL;
}
static int give_back(enum kind kind, void *at) {
    struct block *block = holding(kind, at, 1);
    if (!block || block->at != at) return INVALID;
    free(block->at);
    block->kind = FREE;
    return 0;
}

int cudaRuntimeGetVersion(int *version) { BEGIN; *version = runtime; return 0; }
int cudaDriverGetVersion(int *version) { BEGIN; *version = driver; return 0; }
int cudaGetDeviceCount(int *count) {
    BEGIN;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible && strcmp(visible, "-1") == 0) return 100; /* cudaErrorNoDevice */
    *count = gpus;
    return 0;
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    BEGIN;
    if (device != 0) return 101; /* cudaErrorInvalidDevice */
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? 1 : -1;
    return 0;
}
int cudaGetDeviceProperties(void *properties, int device) {
    BEGIN;
    if (device != 0) return 101;
    memset(properties, 0xFF, 1008);
    memset(properties, 0, 256);
    strcpy(properties, "Fake GPU");
    return 0;
}
int cudaMemGetInfo(size_t *free, size_t *total) { BEGIN; *free = 6UL << 30; *total = 8UL << 30; return 0; }
int cudaMalloc(void **at, size_t size) { BEGIN; return take(DEVICE, at, size); }
int cudaFree(void *at) { BEGIN; return give_back(DEVICE, at); }
int cudaMallocHost(void **at, size_t size) { BEGIN; return take(PINNED, at, size); }
int cudaFreeHost(void *at) { BEGIN; return give_back(PINNED, at); }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
    BEGIN;
    return flags == 1 ? take(STREAM, stream, 16) : INVALID;
}
static void finish(void *stream, int run) {
    int left = 0;
    for (int i = 0; i < step_count; i++) {
        struct step step = steps[i];
        if (step.stream != stream) steps[left++] = step;
        else if (run && step.work) step.work();
        else if (run) memcpy(step.to, step.from, step.size);
    }
    step_count = left;
}
int cudaStreamDestroy(void *stream) { BEGIN; finish(stream, 0); return give_back(STREAM, stream); }

static int put(struct step step) {
    if (!holding(STREAM, step.stream, 16)) return 400; /* cudaErrorInvalidResourceHandle */
    if (step_count == MAX) return 2;
    steps[step_count++] = step;
    return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int direction, void *stream) {
    BEGIN;
    enum kind to_kind = direction == 1 ? DEVICE : PINNED, from_kind = direction == 1 ? PINNED : DEVICE;
    if ((direction != 1 && direction != 2) || !holding(to_kind, to, size) || !holding(from_kind, from, size))
        return INVALID;
    return put((struct step){stream, to, from, size, NULL});
}
int cudaStreamSynchronize(void *stream) {
    BEGIN;
    if (!holding(STREAM, stream, 16)) return 400;
    finish(stream, 1);
    return 0;
}
const char *cudaGetErrorName(int code) {
    return code == 1 ? "cudaErrorInvalidValue" : code == 2 ? "cudaErrorMemoryAllocation"
         : code == 35 ? "cudaErrorInsufficientDriver" : code == 100 ? "cudaErrorNoDevice"
         : code == 700 ? "cudaErrorIllegalAddress" : "cudaErrorUnknown";
}

/* --- for tests --- */

void fake_fail(const char *call, int code) { strncpy(failing_call, call, sizeof failing_call - 1); failure_code = code; }
void fake_gpus(int count) { gpus = count; }
const char *fake_history(void) { return history; }
int fake_blocks(void) { int n = 0; for (int i = 0; i < MAX; i++) n += blocks[i].kind != FREE; return n; }
int fake_enqueue(void *stream, work_t work) { return put((struct step){stream, NULL, NULL, 0, work}); }
int fake_is_device_memory(const void *at, size_t size) { return holding(DEVICE, at, size) != NULL; }
