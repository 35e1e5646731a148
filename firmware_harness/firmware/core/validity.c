/* Which readings are usable, and what they are in standardised units: the C side of
 * edge_runtime.detector.validity and .standardise. */
#include "numerics.h"
#include "parts.h"

int gruard_present(float value) { return gruard_abs(value) < 1e30f; } /* false for NaN, too */

void gruard_check_validity(gruard_detector *d, const float *values) {
    const gruard_model *m = d->model;
    int watched = 0, seen = 0;
    for (uint32_t i = 0; i < m->channels; i++) {
        const float value = values[i];
        const int finite = gruard_present(value);
        watched |= m->watched[i] > 0;
        seen |= finite && m->watched[i] > 0;
        if (!m->has_rules) {
            d->usable[i] = (float)finite;
            continue;
        }
        const float jump = gruard_abs(value - d->last[i]); /* NaN before the first reading */
        const int plausible = !(jump > m->max_step[i] * d->since[i]);
        const int in_range = value >= m->low[i] && value <= m->high[i];
        const int believed = finite && in_range && plausible;
        if (finite) d->same[i] = value == d->last[i] ? d->same[i] + 1.0f : 0.0f;
        d->usable[i] = (float)(believed && d->same[i] < m->stuck_after[i]);
        d->since[i] = believed ? 1.0f : d->since[i] + 1.0f;
        if (believed) d->last[i] = value;
    }
    d->measured = (uint8_t)(seen || !watched);
}

void gruard_standardise(const gruard_model *m, const float *values, const float *mask, float *out) {
    for (uint32_t i = 0; i < m->channels; i++) {
        const float value = mask[i] > 0 ? values[i] : m->center[i];
        out[i] = gruard_clip((value - m->center[i]) / m->scale[i], 100.0f);
    }
}
