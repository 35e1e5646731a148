/* A detector in a main loop: a sensor sends a line a sample over the UART, and gets a line back.
 *
 * From the sensor, thousandths of each channel's unit, nothing where it has none:  12500,-340,,7100
 * Back:  17 tier 1 no alarm: score 2.115 under threshold 14.076
 *
 * Every sample is answered once and in order. A line that cannot be read, or that does not come in
 * time, is a sample without readings, so that the detector's clock goes on. The watchdog is fed by
 * a completed step and by nothing else.
 *
 * The board's side is board.h; `emit` has made the gruard*.h.
 */
#include <string.h>

#include "board.h"
#include "gruard.h"
#include "gruard_blob.h"
#include "gruard_detector.h" /* only for the sizes of the two structs */
#include "gruard_selftest.h"
#include "gruard_words.h"

enum { PATIENCE_MS = 1000, LONGEST_LINE = 16 * GRUARD_BLOB_CHANNELS, MOST = 1 << 24 };

static gruard_model model;
static gruard_detector detector;
static float memory[GRUARD_BLOB_MEMORY / sizeof(float)];

static void say(const char *text) {
    while (*text) board_put(*text++);
}

static void say_number(uint32_t number) {
    if (number >= 10) say_number(number / 10);
    board_put((char)('0' + number % 10));
}

static void answer(const gruard_record *record) {
    char sentence[GRUARD_SENTENCE];
    gruard_describe(&detector, record, sentence, sizeof sentence);
    say_number((uint32_t)record->index);
    say(" tier "), say_number(record->tier);
    say(" "), say(sentence), say("\n");
}

/* One field, up to its end; where it is none, NULL. Below 2^24 thousandths are exact. */
static const char *field(const char *text, float *value) {
    const int negative = *text == '-';
    const char *digits = text + negative;
    int32_t thousandths = 0;
    for (text = digits; *text >= '0' && *text <= '9'; text++) {
        thousandths = 10 * thousandths + (*text - '0');
        if (thousandths >= MOST) return NULL;
    }
    const int empty = text == digits;
    if (empty && negative) return NULL;
    *value = empty ? __builtin_nanf("") : (float)(negative ? -thousandths : thousandths) / 1000.0f;
    return text;
}

/* 1 where the line is as many fields as there are channels. */
static int read_values(const char *line, float *values) {
    for (int i = 0; i < GRUARD_BLOB_CHANNELS; i++) {
        const char end = i + 1 < GRUARD_BLOB_CHANNELS ? ',' : 0;
        line = field(line, values + i);
        if (!line || *line != end) return 0;
        line++;
    }
    return 1;
}

/* 1 where a whole line has come in time. */
static int read_line(char *line) {
    static char coming[LONGEST_LINE + 1];
    static size_t size;
    const uint32_t since = board_milliseconds();
    while (board_milliseconds() - since < PATIENCE_MS) {
        char byte;
        if (!board_get(&byte) || byte == '\r') continue;
        if (byte != '\n') {
            if (size <= LONGEST_LINE) coming[size++] = byte;
            continue;
        }
        const int fits = size <= LONGEST_LINE;
        coming[fits ? size : 0] = 0; /* too long: a line of nothing */
        size = 0;
        memcpy(line, coming, sizeof coming);
        return 1;
    }
    return 0;
}

/* Why the detector cannot start, NULL if it has. */
static const char *start(void) {
    if (gruard_open(&model, gruard_blob, GRUARD_BLOB_BYTES)) return "the bundle is damaged";
    const char *reason = gruard_selftest(&model, &detector, memory, sizeof memory);
    if (reason) return reason;
    return gruard_start(&detector, &model, memory, sizeof memory) ? "too little memory" : NULL;
}

int main(void) {
    static char line[LONGEST_LINE + 1];
    board_start();
    const char *reason = start();
    if (reason) {
        say("REFUSED: "), say(reason), say("\n");
        for (;;); /* and the watchdog is not fed */
    }
    for (;;) {
        float values[GRUARD_BLOB_CHANNELS];
        gruard_record record;
        if (!read_line(line) || !read_values(line, values))
            for (int i = 0; i < GRUARD_BLOB_CHANNELS; i++) values[i] = __builtin_nanf("");
        gruard_step(&detector, values, &record);
        answer(&record);
        board_feed_watchdog();
    }
}
