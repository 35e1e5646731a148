/* Whether the core notices what no step can have left: exit code 0, or the line of the first miss.
 *
 *     harmed_state BLOB GATE_LIMIT < ROWS
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "gruard_detector.h"

#define EXPECT(yes) do { if (!(yes)) return printf("line %d\n", __LINE__), 1; } while (0)

static uint32_t blob[1 << 20], memory[1 << 16];

static int notices(gruard_detector *d, float *number, float harm) {
    const float before = *number;
    *number = harm;
    const int noticed = !gruard_state_is_possible(d);
    *number = before;
    return noticed && gruard_state_is_possible(d);
}

static int believes(gruard_detector *d, float *number, float value) {
    const float before = *number;
    *number = value;
    const int believed = gruard_state_is_possible(d);
    *number = before;
    return believed;
}

int main(int count, char **words) {
    gruard_model model;
    gruard_detector d;
    gruard_record record;
    float row[GRUARD_MOST_CHANNELS];
    FILE *file = count == 3 ? fopen(words[1], "rb") : NULL;
    if (!file) return 2;
    const float limit = strtof(words[2], NULL);
    const size_t size = fread(blob, 1, sizeof blob, file);
    EXPECT(!gruard_open(&model, blob, size));
    EXPECT(!gruard_start(&d, &model, memory, sizeof memory));
    EXPECT(gruard_state_is_possible(&d));
    while (fread(row, sizeof *row, model.channels, stdin) == model.channels) {
        gruard_step(&d, row, &record);
        EXPECT(gruard_state_is_possible(&d));
    }
    const uint32_t last = model.channels - 1;
    EXPECT(d.started && model.states);
    EXPECT(notices(&d, &d.hidden[model.states - 1], NAN));
    EXPECT(notices(&d, &d.hidden[0], 1.5f));
    EXPECT(notices(&d, &d.gate[last], nextafterf(limit, 2.0f)));
    EXPECT(notices(&d, &d.gate[last], nextafterf(-limit, -2.0f)));
    EXPECT(believes(&d, &d.gate[last], limit) && believes(&d, &d.gate[last], -limit));
    EXPECT(notices(&d, &d.mask[last], INFINITY));
    EXPECT(notices(&d, &d.history[model.order * model.channels - 1], 101.0f));
    EXPECT(notices(&d, &d.value[last], -INFINITY));
    EXPECT(notices(&d, &d.correction[last], NAN));
    EXPECT(notices(&d, &d.parts[3], NAN));
    EXPECT(notices(&d, &d.terms[3 * model.channels - 1], INFINITY));
    return 0;
}
