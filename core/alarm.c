/* From scores to an alarm, debounce M of N and hysteresis: edge_runtime.detector.alarm. */
#include "numerics.h"
#include "parts.h"

static uint32_t bits_in(uint32_t word) {
    uint32_t count = 0;
    for (; word; word &= word - 1) count++;
    return count;
}

void gruard_update_alarm(gruard_alarm *alarm, float score, float threshold, float clear,
                         const gruard_model *m) {
    const uint32_t window =
        m->alarm_n == GRUARD_MOST_WINDOW ? 0xFFFFFFFFu : (1u << m->alarm_n) - 1u;
    alarm->above = ((alarm->above << 1) | (uint32_t)(score > threshold)) & window;
    if (!(score <= clear)) alarm->calm = 0;
    else if (alarm->calm < m->clear_after) alarm->calm++; /* no higher count is needed */
    const int rises = bits_in(alarm->above) >= m->alarm_m;
    alarm->active = (uint8_t)(rises || (alarm->active && alarm->calm < m->clear_after));
}
