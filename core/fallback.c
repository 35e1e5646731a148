/* Tier 3, the statistical detector, on every sample: edge_runtime.detector.fallback. */
#include "numerics.h"
#include "parts.h"

/* The views of channel `i`, in the order of `limits`. */
static void update_views(gruard_detector *d, uint32_t i, float views[GRUARD_VIEWS]) {
    const gruard_model *m = d->model;
    const float value = gruard_clip(d->reading[i] - d->view_centre[i], GRUARD_VALUE_CLIP);
    const float usable = d->usable[i], ceiling = m->cusum_ceiling[i];
    const float moved = d->views_started ? usable * (value - d->view_last[i]) : 0.0f;
    const float lean = m->slack * usable;
    d->view_level[i] += m->smoothing * usable * (value - d->view_level[i]);
    d->view_up[i] = gruard_at_most(
        gruard_at_least(d->view_up[i] + usable * value - lean, 0.0f), ceiling);
    d->view_down[i] = gruard_at_most(
        gruard_at_least(d->view_down[i] - usable * value - lean, 0.0f), ceiling);
    if (usable > 0) {
        d->view_same[i] = moved == 0 && d->views_started ? d->view_same[i] + 1.0f : 0.0f;
        d->view_missing[i] = 0;
        d->view_last[i] = value;
    } else {
        d->view_missing[i] += 1.0f;
    }
    views[GRUARD_VIEW_RANGE] = gruard_abs(value) * usable;
    views[GRUARD_VIEW_LEVEL] = gruard_abs(d->view_level[i]);
    views[GRUARD_VIEW_CHANGE] = gruard_abs(moved);
    views[GRUARD_VIEW_CUSUM] = gruard_at_least(d->view_up[i], d->view_down[i]);
    views[GRUARD_VIEW_SAME] = d->view_same[i];
    views[GRUARD_VIEW_MISSING] = d->view_missing[i];
}

/* Views, shares and alarm of a row with readings. */
static void judge(gruard_detector *d) {
    const gruard_model *m = d->model;
    float score = 0;
    for (uint32_t i = 0; i < m->channels; i++) {
        float views[GRUARD_VIEWS];
        update_views(d, i, views);
        float share = views[0] / m->limits[i];
        for (uint32_t v = 1; v < GRUARD_VIEWS; v++)
            share = gruard_at_least(share, views[v] / m->limits[v * m->channels + i]);
        d->shares[i] = share * m->watched[i];
        score = gruard_at_least(score, d->shares[i]);
    }
    d->views_started = 1;
    d->silent = 0;
    gruard_update_alarm(&d->fallback_alarm, score, m->fallback_threshold, m->fallback_clear, m);
}

/* A row without any reading changes nothing until all have been missing for longer than a limit.
 * Returns whether they have. */
static int wait_for_readings(gruard_detector *d) {
    const gruard_model *m = d->model;
    const gruard_float *limits = m->limits + GRUARD_VIEW_MISSING * m->channels;
    int passed = 0;
    if (d->silent < GRUARD_MOST_SILENT) d->silent++; /* beyond it float32 has gaps */
    for (uint32_t i = 0; i < m->channels; i++) {
        const float share = (float)d->silent / limits[i] * m->watched[i];
        if (!(share > m->fallback_threshold)) continue;
        d->shares[i] = gruard_at_least(d->shares[i], share);
        passed = 1;
    }
    return passed;
}

void gruard_fallback(gruard_detector *d) {
    int silent_for_long = 0;
    if (d->measured) judge(d);
    else silent_for_long = wait_for_readings(d);
    d->fallback_score = 0;
    for (uint32_t i = 0; i < d->model->channels; i++)
        d->fallback_score = gruard_at_least(d->fallback_score, d->shares[i]);
    d->fallback_alarmed = d->fallback_alarm.active || silent_for_long;
}

void gruard_stand_at(gruard_detector *d, const float *centre) {
    if (d->model->modes) return; /* a centre is within a mode, the limits are of all modes */
    for (uint32_t i = 0; i < d->model->channels; i++) {
        const float shift = centre[i] - d->view_centre[i];
        d->view_centre[i] = centre[i];
        if (!d->views_started) continue;
        d->view_level[i] = gruard_clip(d->view_level[i] - shift, GRUARD_VALUE_CLIP);
        d->view_last[i] = gruard_clip(d->view_last[i] - shift, GRUARD_VALUE_CLIP);
        if (shift != 0) d->view_up[i] = d->view_down[i] = 0;
    }
}

void gruard_blame_fallback(const gruard_detector *d, int16_t *blamed) {
    gruard_largest(d->shares, d->model->channels, 1, blamed);
}
