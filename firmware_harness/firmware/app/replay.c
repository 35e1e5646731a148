/* A recording through the detector as fast as it goes, by files of the debugger (semihosting).
 *
 * rows.bin: a head (struct head), then float32 [rows][channels]. records.bin: a gruard_record for
 * each row. traces.bin, where they are asked for: mask, forecast and gate [channels], states, parts
 * [4], and the fallback's score and alarm, float32, for each row. The exit code is 0, or 64 and a
 * gruard_error.
 */
#include "board.h"
#include "built.h"
#include "gruard.h"
#include "memory.h"

enum { OPEN = 1, CLOSE = 2, WRITE = 5, READ = 6, EXIT = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, AT_ONCE = 64, REFUSED = 64, BROKEN_FILE = 63 };
#define STOPPED 0x20026u

enum { PARTS = 4, FALLBACK = 2 };

typedef struct {
    float threshold, clear; /* of the model's alarm */
    uint32_t traces;        /* 1: write them */
} head;

static gruard_model model;
static gruard_detector detector;
static gruard_record records[AT_ONCE];

static int32_t call(uint32_t operation, volatile void *arguments) {
    register uint32_t r0 __asm("r0") = operation;
    register volatile void *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

__attribute__((noreturn)) static void leave(uint32_t code) {
    volatile uint32_t arguments[2] = {STOPPED, code};
    for (;;) call(EXIT, arguments);
}

static uint32_t open_file(const char *name, uint32_t mode) {
    uint32_t length = 0;
    while (name[length]) length++;
    volatile uint32_t arguments[3] = {(uint32_t)name, mode, length};
    const int32_t handle = call(OPEN, arguments);
    if (handle < 0) leave(BROKEN_FILE);
    return (uint32_t)handle;
}

static size_t read_file(uint32_t handle, void *data, size_t size) {
    volatile uint32_t arguments[3] = {handle, (uint32_t)data, size};
    return size - (size_t)call(READ, arguments);
}

static void write_file(uint32_t handle, const void *data, size_t size) {
    volatile uint32_t arguments[3] = {handle, (uint32_t)data, size};
    if (call(WRITE, arguments)) leave(BROKEN_FILE);
}

static float *append(float *to, const float *from, size_t count) {
    while (count--) *to++ = *from++;
    return to;
}

static void *take(size_t size) {
    void *memory = memory_take(size);
    if (!memory) leave(REFUSED + GRUARD_NO_MEMORY);
    return memory;
}

static void start(const head *wanted) {
    gruard_error error = gruard_open(&model, gruard_blob, gruard_blob_size);
    if (error) leave(REFUSED + error);
    const size_t size = gruard_memory(&model);
    error = gruard_start(&detector, &model, take(size), size);
    if (error) leave(REFUSED + error);
    gruard_set_threshold(&detector, wanted->threshold, wanted->clear);
}

int main(void) {
    const uint32_t in = open_file("rows.bin", READ_BINARY);
    const uint32_t out = open_file("records.bin", WRITE_BINARY);
    head wanted;
    if (read_file(in, &wanted, sizeof wanted) != sizeof wanted) leave(BROKEN_FILE);
    start(&wanted);
    const size_t n = model.channels, traced = 3 * n + model.states + PARTS + FALLBACK;
    const uint32_t inside = wanted.traces ? open_file("traces.bin", WRITE_BINARY) : 0;
    float *rows = take(AT_ONCE * n * sizeof(float));
    float *traces = take(wanted.traces ? AT_ONCE * traced * sizeof(float) : 0);
    for (;;) {
        const size_t count = read_file(in, rows, AT_ONCE * n * sizeof(float)) / (n * sizeof(float));
        float *trace = traces;
        for (size_t i = 0; i < count; i++) {
            gruard_step(&detector, rows + i * n, records + i);
            if (!wanted.traces) continue;
            trace = append(trace, detector.mask, n);
            trace = append(trace, detector.forecast, n);
            trace = append(trace, detector.gate, n);
            trace = append(trace, detector.hidden, model.states);
            trace = append(trace, detector.parts, PARTS);
            const float fallback[FALLBACK] = {detector.fallback_score,
                                              detector.fallback_alarm.active};
            trace = append(trace, fallback, FALLBACK);
        }
        write_file(out, records, count * sizeof(gruard_record));
        if (wanted.traces) write_file(inside, traces, count * traced * sizeof(float));
        if (count < AT_ONCE) break;
    }
    volatile uint32_t handle[1] = {out};
    call(CLOSE, handle);
    leave(0);
}

/* Nothing watches a replay: the debugger does. */
void app_note(board_trouble trouble, uint32_t pc, uint32_t lr, uint32_t status) {
    (void)trouble;
    (void)pc;
    (void)lr;
    (void)status;
    leave(BROKEN_FILE - 1);
}
void app_expire(void) {}
