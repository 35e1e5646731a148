/* Fault injection: every fault is a real one. */
#ifdef GRUARD_TEST
#include "inject.h"

#include "black_box.h"
#include "built.h"
#include "engine.h"

__attribute__((noinline)) static void hang(void) {
    for (;;) __asm volatile("nop");
}

/* Sleep with interrupts off. */
__attribute__((noinline)) static void sleep(void) {
    __asm volatile("cpsid i");
    for (;;) __asm volatile("wfi");
}

__attribute__((noinline)) static void fault(void) { __asm volatile("udf #0"); }

__attribute__((noinline)) static uint32_t overflow(uint32_t depth) {
    volatile uint32_t frame[32];
    frame[depth % 32] = depth;
    return depth == UINT32_MAX ? 0 : overflow(depth + 1) + frame[depth % 32];
}

static void flip_weight(void) {
    volatile uint32_t *words = (volatile uint32_t *)(uintptr_t)gruard_blob;
    words[gruard_blob_size / 4 - 8] ^= 1u << 6;
}

void inject(uint32_t injection) {
    box.ended_at = 0;
    box.injected_at = board_ticks() | 1u;
    switch (injection) {
    case INJECT_HANG: hang(); break;
    case INJECT_SLEEP: sleep(); break;
    case INJECT_FAULT: fault(); break;
    case INJECT_STACK: overflow(0); break;
    case INJECT_WEIGHTS: flip_weight(); break;
    case INJECT_STATE: engine_flip_state(); break;
    default: break;
    }
}
#endif
