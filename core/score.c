/* The anomaly score and the channels behind it: edge_runtime.detector.score. */
#include "numerics.h"
#include "parts.h"

float gruard_height(const gruard_model *m, const float *parts, uint32_t place) {
    return m->weights[place % GRUARD_PARTS] *
           ((parts[place] - m->part_mean[place]) / m->part_std[place]);
}

/* The largest height of the parts: for the alarm less their baselines, for the record as from the
 * recording. */
GRUARD_HOT static void judge(gruard_detector *d) {
    const gruard_model *m = d->model;
    float here = 0, score = 0;
    int heard = 0;
    for (uint32_t p = 0; p < gruard_heights(m); p++) {
        if (!(m->weights[p % GRUARD_PARTS] > 0)) continue;
        const float height = gruard_height(m, d->parts, p), above = height - d->baselines[p];
        const float part = d->changed ? gruard_height(m, d->recorded, p) : height;
        here = heard && !(above > here) ? here : above;
        score = heard && !(part > score) ? score : part;
        heard = 1;
    }
    d->here = here;
    d->score = score;
}

void gruard_start_score(gruard_detector *d, int keep_level) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    for (uint32_t p = 0; p < gruard_heights(m); p++)
        if (!keep_level || p % GRUARD_PARTS != GRUARD_PART_LEVEL)
            d->parts[p] = d->recorded[p] = m->part_mean[p];
    memcpy(d->terms, m->channel_mean, (keep_level ? 2 : 3) * n * sizeof(float));
    judge(d);
}

/* Length of root [n][n] times vector; `along` is room for n floats. */
static float distance(const gruard_float *root, const float *vector, uint32_t n, float *along) {
    float total = 0;
    gruard_matvec(root, n, n, vector, along);
    for (uint32_t i = 0; i < n; i++)
        total = i ? total + along[i] * along[i] : along[i] * along[i];
    return gruard_root(total);
}

static float smoothed(float before, float now, float attack, float decay) {
    return before + (now > before ? attack : decay) * (now - before);
}

/* Until the forecast has settled, only the level, which needs none, is updated. */
static float rate_of(uint32_t part, float rate, int settling) {
    return settling && part != GRUARD_PART_LEVEL ? 0.0f : rate;
}

/* Error of forecast f of channel i, from the centre or as from the recording. */
static float error_of(const gruard_detector *d, uint32_t f, uint32_t i, int recorded) {
    const gruard_model *m = d->model;
    const float *forecast = f == 0 ? d->forecast : f == 1 ? d->own : d->ahead;
    const uint32_t place = f * m->channels + i;
    if (!(d->mask[i] > 0)) return m->absent[place] * m->watched[i];
    float error = d->mask[i] * (d->reading[i] - forecast[i]);
    if (recorded) error += d->mask[i] * d->pulled[place];
    return gruard_clip(error, GRUARD_SCORE_CLIP) * m->watched[i];
}

/* Unsmoothed parts of the present row, from the centre or as from the recording; from the centre
 * this also updates the terms of the channels. */
GRUARD_HOT static void measure(gruard_detector *d, int recorded, int settling, float *parts) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    const uint32_t heard[3] = {1, m->has_own, m->horizon};
    const float attack = settling ? 0.0f : m->attack[0], decay = settling ? 0.0f : m->decay[0];
    float *e = d->scratch, *x = e + n, *along = x + n;
    float sums[3] = {0, 0, 0}, evidence = 0, count = 0;
    for (uint32_t i = 0; i < n; i++) {
        const float usable = d->mask[i] * m->watched[i];
        float errors = 0;
        for (uint32_t f = 0; f < 3; f++) {
            if (!heard[f]) continue;
            const float error = error_of(d, f, i, recorded);
            const float ratio = error / m->error_scale[f * n + i];
            const float term = gruard_log(1.0f + 0.25f * (ratio * ratio), m->log_table);
            if (f == 0) e[i] = error;
            sums[f] = i ? sums[f] + term : term;
            errors = f ? errors + term : term;
        }
        x[i] = gruard_clip(recorded ? d->absolute[i] : d->reading[i], GRUARD_SCORE_CLIP) * usable;
        const float doubt = d->doubt[i] * usable, level = x[i] * x[i];
        evidence = i ? evidence + doubt : doubt;
        count += m->watched[i];
        if (recorded) continue;
        d->terms[i] = smoothed(d->terms[i], errors, attack, decay);
        d->terms[n + i] = smoothed(d->terms[n + i], doubt, attack, decay);
        d->terms[2 * n + i] = smoothed(d->terms[2 * n + i], level, m->attack[0], m->decay[0]);
    }
    count = gruard_at_least(count, 1.0f);
    parts[GRUARD_PART_RESIDUAL] = sums[0] / count;
    parts[GRUARD_PART_OWN] = sums[1] / count;
    parts[GRUARD_PART_AHEAD] = sums[2] / count;
    parts[GRUARD_PART_DISTANCE] = distance(m->distance_root, e, n, along);
    parts[GRUARD_PART_LEVEL] = distance(m->level_root, x, n, along);
    parts[GRUARD_PART_GATE] = evidence / count;
}

GRUARD_HOT static void smooth(const gruard_model *m, int settling, const float *now, float *parts) {
    for (uint32_t place = 0; place < gruard_heights(m); place++) {
        const uint32_t part = place % GRUARD_PARTS, memory = place / GRUARD_PARTS;
        parts[place] = smoothed(parts[place], gruard_at_most(now[part], m->ceiling[place]),
                                rate_of(part, m->attack[memory], settling),
                                rate_of(part, m->decay[memory], settling));
    }
}

void gruard_score(gruard_detector *d) {
    if (d->measured) { /* else nothing is judged */
        const int settling = gruard_settling(d);
        float parts[GRUARD_PARTS], recorded[GRUARD_PARTS];
        measure(d, 0, settling, parts);
        if (d->changed) { /* the recorded operating point is never an anomaly */
            measure(d, 1, settling, recorded);
            smooth(d->model, settling, recorded, d->recorded);
            parts[GRUARD_PART_LEVEL] =
                gruard_at_most(parts[GRUARD_PART_LEVEL], recorded[GRUARD_PART_LEVEL]);
        }
        smooth(d->model, settling, parts, d->parts);
    }
    judge(d);
}

void gruard_largest(const float *shares, uint32_t count, int from_zero, int16_t *chosen) {
    for (uint32_t rank = 0; rank < GRUARD_BLAMED; rank++) {
        int32_t best = -1;
        for (uint32_t i = 0; i < count; i++) {
            int taken = 0;
            for (uint32_t r = 0; r < rank; r++) taken |= chosen[r] == (int32_t)i;
            if (!taken && (best < 0 || shares[i] > shares[best])) best = (int32_t)i;
        }
        chosen[rank] = -1;
        if (best < 0 || (!from_zero && !(shares[best] > 0))) continue;
        if (rank && !(chosen[0] >= 0 && shares[best] >= shares[chosen[0]] / 2.0f)) continue;
        chosen[rank] = (int16_t)best;
    }
}

void gruard_blame_score(gruard_detector *d, int16_t *blamed) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    float *shares = d->scratch;
    for (uint32_t i = 0; i < n; i++) {
        float logs[3];
        for (uint32_t t = 0; t < 3; t++) {
            const float excess = d->terms[t * n + i] - m->channel_mean[t * n + i];
            logs[t] = gruard_log(1.0f + gruard_at_least(excess, 0.0f) / m->typical[t],
                                 m->log_table);
        }
        shares[i] = (m->weights[GRUARD_PART_RESIDUAL] * logs[0] +
                     m->weights[GRUARD_PART_GATE] * logs[1] +
                     m->weights[GRUARD_PART_LEVEL] * logs[2]) * m->watched[i];
    }
    gruard_largest(shares, n, 0, blamed);
}
