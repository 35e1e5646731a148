/* Lasting changes: edge_runtime.detector.change. */
#include "numerics.h"
#include "parts.h"

/* Whether the model gets readings less the centre; a network does not. */
static int moves(const gruard_detector *d) { return !d->model->layers && !d->model->gated; }

void gruard_take_stand(gruard_detector *d) {
    const uint32_t n = d->model->channels;
    memcpy(d->absolute, d->reading, n * sizeof(float));
    if (!d->changed || !moves(d)) return;
    for (uint32_t i = 0; i < n; i++)
        d->reading[i] = d->usable[i] > 0
                            ? gruard_clip(d->reading[i] - d->centre[i], GRUARD_VALUE_CLIP) : 0.0f;
}

/* Make the history of channel `i` relative to another centre. */
static void move_centre(gruard_detector *d, uint32_t i, float to) {
    const gruard_model *m = d->model;
    const float shift = to - d->centre[i];
    d->centre[i] = to;
    if (!moves(d)) return;
    for (uint32_t lag = 0; lag < m->depth; lag++) {
        float *trusted = d->history + lag * m->channels + i;
        *trusted = gruard_clip(*trusted - shift, GRUARD_VALUE_CLIP);
    }
    d->value[i] =
        d->mask[i] > 0 ? gruard_clip(d->value[i] - shift, GRUARD_VALUE_CLIP) : 0.0f;
}

/* out [channels] += matrix times the centre at every lag; along: room for n floats. */
static void add_by_lags(const gruard_detector *d, const gruard_float *matrix, float *along,
                        float *out) {
    const uint32_t n = d->model->channels;
    for (uint32_t lag = 0; lag < d->model->order; lag++) {
        gruard_matvec(matrix + lag * n * n, n, n, d->centre, along);
        for (uint32_t i = 0; i < n; i++) out[i] += along[i];
    }
}

/* How much larger each error is as from the recording: edge_runtime.detector.linear.at_rest. */
static void pull(gruard_detector *d) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    if (!moves(d)) return;
    float *along = d->scratch, *crossed = along + n, *ahead = crossed + n;
    memset(crossed, 0, 2 * n * sizeof(float));
    if (m->has_cross) add_by_lags(d, m->cross, along, crossed);
    if (m->horizon) add_by_lags(d, m->ahead, along, ahead);
    for (uint32_t i = 0; i < n; i++) {
        const float centre = d->centre[i];
        float highway = 0, own = 0;
        for (uint32_t lag = 0; lag < m->order; lag++) highway += m->highway[lag * n + i] * centre;
        for (uint32_t lag = 0; m->has_own && lag < m->order; lag++)
            own += m->own[lag * n + i] * centre;
        d->pulled[i] = centre - (highway + crossed[i]);
        d->pulled[n + i] = centre - own;
        d->pulled[2 * n + i] = centre - ahead[i];
    }
}

/* Update forecasts and fallback after the centre has moved. */
static void stand(gruard_detector *d) {
    pull(d);
    gruard_stand_at(d, d->centre);
}

static void follow_baselines(gruard_detector *d) {
    float *baselines = d->baselines;
    for (uint32_t p = 0; p < gruard_heights(d->model); p++) {
        const float height = gruard_height(d->model, d->parts, p);
        const float gap = gruard_clip(height - baselines[p], GRUARD_BASELINE_CLIP);
        const float rate = d->model->baseline_rate;
        const float used = gap > 0 && d->alarm.active ? GRUARD_ALARMED_SHARE * rate : rate;
        baselines[p] = gruard_at_least(baselines[p] + used * gap, 0.0f);
    }
}

/* Count the change as reported. From now on the machine is judged from its present operating point;
 * by a network, from the recorded one with raised baselines. */
static void settle(gruard_detector *d) {
    const gruard_model *m = d->model;
    if (!d->changed) memcpy(d->recorded, d->parts, sizeof d->recorded);
    for (uint32_t p = 0; p < gruard_heights(m); p++) {
        const uint32_t part = p % GRUARD_PARTS;
        if (moves(d) && part == GRUARD_PART_LEVEL) d->parts[p] = m->part_mean[p];
        if (moves(d) && (part == GRUARD_PART_LEVEL || part == GRUARD_PART_GATE)) continue;
        const float height = gruard_height(m, d->parts, p);
        if (2.0f * (height - d->baselines[p]) > d->threshold) d->baselines[p] = height;
    }
    for (uint32_t i = 0; i < m->channels; i++)
        move_centre(d, i, m->watched[i] > 0 ? d->standing[i] : d->centre[i]);
    stand(d);
    memset(&d->alarm, 0, sizeof d->alarm);
    d->changed = GRUARD_HAS_CHANGED;
    d->changes++;
    d->steady = d->home = 0;
}

static void come_back(gruard_detector *d) {
    for (uint32_t i = 0; i < d->model->channels; i++) move_centre(d, i, 0.0f);
    stand(d);
    memcpy(d->parts, d->recorded, sizeof d->parts);
    memset(d->baselines, 0, sizeof d->baselines);
    d->changed = GRUARD_AS_RECORDED;
    d->steady = d->home = 0;
}

static void follow(gruard_detector *d) {
    const gruard_model *m = d->model;
    for (uint32_t i = 0; i < m->channels; i++) {
        const float apart = gruard_clip(d->absolute[i] - d->centre[i], GRUARD_FOLLOW_CLIP);
        move_centre(d, i, d->centre[i] + m->follow[i] * (d->usable[i] > 0 ? apart : 0.0f));
    }
    stand(d);
}

void gruard_change(gruard_detector *d, int settling) {
    const gruard_model *m = d->model;
    for (uint32_t i = 0; i < m->channels; i++)
        if (d->usable[i] > 0)
            d->standing[i] += GRUARD_STANDING_RATE * (d->absolute[i] - d->standing[i]);
    if (settling) return;
    follow_baselines(d);
    d->steady = d->alarm.active ? d->steady + 1 : 0;
    if (d->changed) d->home = d->score <= d->clear ? d->home + 1 : 0;
    if (m->change_after && d->steady >= m->change_after) settle(d);
    else if (d->changed && d->home >= m->change_after) come_back(d);
    else if (d->changed && m->follows) follow(d);
}

void gruard_accept(gruard_detector *d, int yes) {
    if (d->changed) d->changed = yes ? GRUARD_ACCEPTED : GRUARD_HAS_CHANGED;
}

void gruard_resume(gruard_detector *d, uint8_t changed, uint32_t changes, const float *centre,
                   const float *baselines) {
    const gruard_model *m = d->model;
    d->changed = changed;
    d->changes = changes;
    memcpy(d->centre, centre, m->channels * sizeof(float));
    memcpy(d->standing, centre, m->channels * sizeof(float));
    memcpy(d->baselines, baselines, gruard_heights(m) * sizeof(float));
    stand(d);
}
