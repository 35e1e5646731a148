#include "gruard_words.h"

#include "gruard_blob.h"
#include "gruard_detector.h"

typedef struct {
    char *next;
    size_t left; /* with room for the 0 */
} writer;

static void put(writer *w, const char *text) {
    for (; *text && w->left > 1; w->left--) *w->next++ = *text++;
    *w->next = 0;
}

static void put_count(writer *w, uint32_t number) {
    char digits[11], *first = digits + sizeof digits - 1;
    *first = 0;
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    put(w, first);
}

/* With three decimals. */
static void put_number(writer *w, float number) {
    if (number < 0) put(w, "-");
    const float size = number < 0 ? -number : number;
    const uint32_t thousandths = size < 4e6f ? (uint32_t)(size * 1000.0f + 0.5f) : 4000000000u;
    char digits[5] = {'.', 0, 0, 0, 0};
    for (uint32_t i = 3, rest = thousandths; i; i--, rest /= 10)
        digits[i] = (char)('0' + rest % 10);
    put_count(w, thousandths / 1000);
    put(w, digits);
}

void gruard_describe(const gruard_detector *detector, const gruard_record *record, char *sentence,
                     size_t size) {
    if (!size) return;
    const int by_fallback = record->tier == 3;
    const float threshold =
        by_fallback ? detector->model->fallback_threshold : detector->threshold;
    writer w = {sentence, size};
    put(&w, record->alarm ? "ALARM" : "no alarm");
    for (int i = 0; record->alarm && i < GRUARD_BLAMED && record->blamed[i] >= 0; i++) {
        put(&w, i ? ", " : " in ");
        put(&w, gruard_channels[record->blamed[i]]);
    }
    if (!record->valid) put(&w, ", not valid");
    put(&w, ": score ");
    put_number(&w, record->score);
    put(&w, record->score > threshold ? " over threshold " : " under threshold ");
    put_number(&w, threshold);
}
