/* Run a recording through the detector at full speed, with files of the debugger (semihosting).
 *
 * rows.bin: a head (struct head), then float32 [rows][channels]. records.bin: a gruard_record for
 * each row. traces.bin, on request: mask, forecast and gate [channels], states, parts of all
 * memories, and the fallback's score and alarm, float32, for each row. The exit code is 0, or 64
 * plus a gruard_error.
 */
#include "board.h"
#include "built.h"
#include "gruard_detector.h"
#include "memory.h"
#include "semihosting.h"

enum { AT_ONCE = 8, REFUSED = 64 };

enum { FALLBACK = 2 };

typedef struct {
    float threshold, clear; /* of the model's alarm */
    uint32_t traces;        /* 1: write them */
} head;

static gruard_model model;
static gruard_detector detector;
static gruard_record records[AT_ONCE];

static float *append(float *to, const float *from, size_t count) {
    while (count--) *to++ = *from++;
    return to;
}

static void *take(size_t size) {
    void *memory = memory_take(size);
    if (!memory) host_leave(REFUSED + GRUARD_NO_MEMORY);
    return memory;
}

static void start(const head *wanted) {
    gruard_error error = gruard_open(&model, gruard_blob, gruard_blob_size);
    if (error) host_leave(REFUSED + error);
    const size_t size = gruard_memory(&model);
    error = gruard_start(&detector, &model, take(size), size);
    if (error) host_leave(REFUSED + error);
    gruard_set_threshold(&detector, wanted->threshold, wanted->clear);
}

int main(void) {
    const uint32_t in = host_open("rows.bin", HOST_TO_READ);
    const uint32_t out = host_open("records.bin", HOST_TO_WRITE);
    head wanted;
    if (host_read(in, &wanted, sizeof wanted) != sizeof wanted) host_leave(HOST_BROKEN);
    start(&wanted);
    const size_t n = model.channels, parts = gruard_heights(&model);
    const size_t traced = 3 * n + model.states + parts + FALLBACK;
    const uint32_t inside = wanted.traces ? host_open("traces.bin", HOST_TO_WRITE) : 0;
    float *rows = take(AT_ONCE * n * sizeof(float));
    float *traces = take(wanted.traces ? AT_ONCE * traced * sizeof(float) : 0);
    for (;;) {
        const size_t count = host_read(in, rows, AT_ONCE * n * sizeof(float)) / (n * sizeof(float));
        float *trace = traces;
        for (size_t i = 0; i < count; i++) {
            gruard_step(&detector, rows + i * n, records + i);
            if (!wanted.traces) continue;
            trace = append(trace, detector.mask, n);
            trace = append(trace, detector.forecast, n);
            trace = append(trace, detector.gate, n);
            trace = append(trace, detector.hidden, model.states);
            trace = append(trace, detector.parts, parts);
            const float fallback[FALLBACK] = {detector.fallback_score,
                                              detector.fallback_alarmed};
            trace = append(trace, fallback, FALLBACK);
        }
        host_write(out, records, count * sizeof(gruard_record));
        if (wanted.traces) host_write(inside, traces, count * traced * sizeof(float));
        if (count < AT_ONCE) break;
    }
    volatile uint32_t handle[1] = {out};
    host_call(HOST_CLOSE, handle);
    host_leave(0);
}

/* A replay has no watchdog; the debugger ends it. */
void app_note(board_trouble trouble, uint32_t pc, uint32_t lr, uint32_t status) {
    (void)trouble;
    (void)pc;
    (void)lr;
    (void)status;
    host_leave(HOST_BROKEN - 1);
}
void app_expire(void) {}
