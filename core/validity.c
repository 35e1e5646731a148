/* From raw readings to standardised ones: validity, operating modes, scaling. The C side of
 * edge_runtime.detector.inputs. */
#include "numerics.h"
#include "parts.h"

int gruard_present(float value) {
    return gruard_abs(value) < GRUARD_BEYOND_BELIEF; /* false for NaN, too */
}

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

void gruard_standardise(const gruard_detector *d, const float *values, const float *mask,
                        float *out) {
    for (uint32_t i = 0; i < d->model->channels; i++) {
        const float value = mask[i] > 0 ? values[i] : d->center[i];
        out[i] = gruard_clip((value - d->center[i]) / d->scale[i], GRUARD_VALUE_CLIP);
    }
}

/* Distance of the settings from those of `mode`, in its reaches; infinite if one is not usable. */
static float apart_from(const gruard_detector *d, uint32_t mode, const float *values) {
    const gruard_model *m = d->model;
    float apart = 0;
    for (uint32_t t = 0; t < m->telling; t++) {
        const uint32_t i = m->teller[t], at = mode * m->telling + t;
        if (!(d->usable[i] > 0)) return __builtin_inff();
        apart = gruard_at_least(gruard_abs(values[i] - m->setting[at]) / m->reach[at], apart);
    }
    return apart;
}

void gruard_find_mode(gruard_detector *d, const float *values) {
    const gruard_model *m = d->model;
    uint32_t nearest = 0;
    float least = __builtin_inff();
    d->unknown_mode = 0;
    for (uint32_t mode = 0; mode < m->modes; mode++) {
        const float apart = apart_from(d, mode, values);
        if (!(apart < least)) continue;
        least = apart;
        nearest = mode;
    }
    if (least <= 1.0f) {
        d->center = m->mode_center + nearest * m->channels;
        d->scale = m->mode_scale + nearest * m->channels;
        return;
    }
    d->unknown_mode = 1;
    d->measured = 0;
    for (uint32_t i = 0; i < m->channels; i++)
        if (m->watched[i] > 0) d->usable[i] = 0;
}
