/* The firmware: samples come over the UART, records go back, a watchdog guards the loop.
 *
 * A turn waits for a sample, steps, answers, and uses the remaining time for checks; without a sample
 * it sends a gap message. Only a turn that passed all stages in order, and whose step the core has
 * counted, feeds the watchdog. After a reset the fallback answers until the model has proven itself.
 * After the third reset only the spare answers, until power-off. Resets are forgotten after a long
 * healthy time.
 */
#include <string.h>

#include "black_box.h"
#include "board.h"
#include "engine.h"
#include "inject.h"
#include "link.h"
#include "place.h"
#include "protocol.h"

/* The watchdog resets after twice its time. */
enum { START_MS = 1000, WATCHDOG_MS = 200, PATIENCE_MS = 150, MOST_RESETS = 3, STORE_BYTES = 65536,
       INSISTS = 8 };

static uint32_t malformed;
static black_box last; /* the box at the start */
static uint32_t started_at;
#ifdef GRUARD_TEST
static uint32_t injection, skipping;
#else
enum { skipping = 0 };
#endif
static gruard_record answer;
static int answered; /* `answer` is the record of the sample before box.next */

static void tell_status(void) {
    const engine_state *engine = engine_look();
    const status told = {
        .service = engine->service, .refusal = engine->refusal, .cause = last.cause, .pc = last.pc,
        .lr = last.lr, .fault_status = last.fault_status, .stage = last.stage,
        .resets = last.resets,
        .next = box.next, .channels = engine->channels, .selftest = engine->selftest,
        .malformed = malformed, .walks = engine->walks,
        .ticks_to_reset = last.injected_at && last.ended_at ? last.ended_at - last.injected_at : 0,
        .ticks_to_word = started_at,
    };
    link_send(TELL_STATUS, box.next, &told, sizeof told);
}

static void tell_error(uint32_t error) {
    const uint32_t told[2] = {error, malformed};
    link_send(TELL_ERROR, box.next, told, sizeof told);
}

/* Without the words of the masks that no channel needs. */
static void tell_record(uint32_t sequence) {
    static uint8_t body[sizeof answer];
    const size_t head = offsetof(gruard_record, masked);
    const size_t mask = 4 * ((engine_look()->channels + 31) / 32);
    memcpy(body, &answer, head);
    memcpy(body + head, answer.masked, mask);
    memcpy(body + head + mask, answer.imputed, mask);
    link_send(TELL_RECORD, sequence, body, head + 2 * mask);
}

/* A turn ended without having done its work: wait for the watchdog's reset. */
__attribute__((noreturn)) static void starve(void) {
    box.cause = CAUSE_SEQUENCE;
    for (;;);
}

static void reset_for(uint32_t cause) {
    if (cause) box_note_and_reset(cause);
}

static void step(const message *asked) {
    static float values[GRUARD_MOST_CHANNELS];
    const uint64_t before = engine_steps();
    memcpy(values, asked->body, asked->size);
    box.stage = STAGE_STEPPING;
    if (!skipping) reset_for(engine_step(values, &answer));
    if (engine_steps() != before + 1) starve();
    answer.index = asked->sequence;
}

/* If the host sends the same other sample again and again, go on from there: it has the samples. */
static void accept_sequence(uint32_t sequence) {
    static uint32_t insisted, times;
    times = sequence == insisted ? times + 1 : 1;
    insisted = sequence;
    if (times < INSISTS) return;
    times = 0;
    box_set_next(sequence);
    engine_distrust();
}

/* 1: that was the turn's sample. */
static int take_sample(const message *asked) {
    const engine_state *engine = engine_look();
    box_heal_next(asked->sequence);
    if (asked->size != 4 * engine->channels) {
        tell_error(engine->channels ? ERROR_LENGTH : ERROR_NO_DETECTOR);
    } else if (asked->sequence + 1 == box.next && answered) {
        tell_record(asked->sequence); /* asked again, because our answer was lost */
    } else if (asked->sequence != box.next && asked->sequence + 1 != box.next) {
        tell_error(ERROR_SEQUENCE);
        accept_sequence(asked->sequence);
    } else { /* also the sample before, if a reset interrupted its answer */
        step(asked);
        box.stage = STAGE_ANSWERING;
        box_set_next(asked->sequence + 1);
        answered = 1;
        tell_record(asked->sequence);
        return 1;
    }
    return 0;
}

#ifdef GRUARD_TEST
static uint32_t store[STORE_BYTES / 4];

static uint32_t word_of(const message *asked) {
    uint32_t word = 0;
    memcpy(&word, asked->body, asked->size < sizeof word ? asked->size : sizeof word);
    return word;
}

/* 1: it was one of the messages of test builds. */
static int take_test(const message *asked) {
    const uint32_t word = word_of(asked);
    if (asked->kind == ASK_INJECT && asked->size == 4) {
        injection = word;
    } else if (asked->kind == ASK_STORE && asked->size > 4 && word < STORE_BYTES &&
               asked->size - 4 <= STORE_BYTES - word) {
        memcpy((uint8_t *)store + word, asked->body + 4, asked->size - 4);
        tell_status();
    } else if (asked->kind == ASK_TRY && asked->size == 4) {
        const uint32_t told = word > STORE_BYTES ? GRUARD_NO_MEMORY : engine_try(store, word);
        link_send(TELL_TRIED, box.next, &told, sizeof told);
    } else {
        return 0;
    }
    return 1;
}

static void inject_now(void) {
    const uint32_t wanted = injection;
    injection = 0;
    if (wanted == INJECT_SKIP) skipping = 1;
    if (wanted) inject(wanted);
}
#else
static int take_test(const message *asked) {
    (void)asked;
    return 0;
}
static void inject_now(void) {}
#endif

static int take(const message *asked) {
    if (asked->kind == ASK_SAMPLE) return take_sample(asked);
    if (asked->kind == ASK_STATUS && asked->size == 0) tell_status();
    else if (asked->kind == ASK_STATUS) tell_error(ERROR_LENGTH);
    else if (!take_test(asked)) tell_error(ERROR_KIND);
    return 0;
}

/* Wait until a sample was answered, at most PATIENCE_MS. */
static void wait_and_answer(void) {
    const uint32_t since = board_ticks();
    if (box.stage != STAGE_IDLE) starve(); /* a wild jump skipped the end of the last turn */
    box.stage = STAGE_WAITING;
    while (board_ticks() - since < PATIENCE_MS * BOARD_TICKS_PER_MS) {
        message asked;
        const int found = link_receive(&asked);
        if (found < 0) {
            malformed++;
            tell_error((uint32_t)-found);
        } else if (found > 0 && take(&asked)) {
            return;
        }
    }
    box.stage = STAGE_ANSWERING;
    link_send(TELL_GAP, box.next, "", 0);
}

/* A separate function, so that no register keeps a value from turn to turn, damaged or not. */
__attribute__((noinline)) static void turn(void) {
    wait_and_answer();
    if (box.stage != STAGE_ANSWERING) starve();
    box.stage = STAGE_IDLE;
    reset_for(engine_idle());
    if (engine_proven()) box.resets = 0;
    board_feed_watchdog();
    inject_now();
}

int main(void) {
    board_start();
    const int afresh = box_open();
    last = box;
    box.cause = CAUSE_POWER;
    box.injected_at = 0;
    board_arm_watchdog(START_MS);
    engine_start(afresh, last.resets >= MOST_RESETS);
    started_at = board_ticks();
    tell_status();
    box.stage = STAGE_IDLE;
    board_arm_watchdog(WATCHDOG_MS);
    for (;;) turn();
}
