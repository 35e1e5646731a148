/* One step of the whole detector: edge_runtime.detector.cell and .step. */
#include "numerics.h"
#include "parts.h"

/* Place of the next vector, in words of the caller's memory; without memory it only counts. */
typedef struct {
    float *memory;
    size_t next;
} layout;

static float *place(layout *l, size_t words) {
    float *vector = l->memory ? l->memory + l->next : NULL;
    l->next += words;
    return vector;
}

static void place_diagnosis(gruard_detector *d, layout *l, size_t n) {
    d->x = place(l, n);
    d->averages = place(l, 2 * n);
    d->fault = place(l, n);
    d->repeats = place(l, n);
    d->known = place(l, n);
    d->sums = place(l, GRUARD_SUMS * n);
    d->peaks = place(l, GRUARD_PEAKS * n);
    d->weighted = place(l, GRUARD_DIAGNOSIS_VIEWS * n);
    d->reconstruction = place(l, GRUARD_DIAGNOSIS_VIEWS * n);
    d->explained = place(l, n);
    d->own_fault = place(l, n);
    d->other_fault = place(l, n);
    d->other_explained = place(l, n);
}

static size_t place_all(gruard_detector *d, const gruard_model *m, float *memory) {
    layout l = {memory, 0};
    const size_t n = m->channels;
    d->last = place(&l, n);
    d->since = place(&l, n);
    d->same = place(&l, n);
    d->history = place(&l, m->depth * n);
    d->hidden = place(&l, m->states);
    d->gate = place(&l, n);
    d->correction = place(&l, n);
    d->value = place(&l, n);
    d->mask = place(&l, n);
    d->terms = place(&l, 3 * n);
    d->centre = place(&l, n);
    d->standing = place(&l, n);
    d->pulled = place(&l, 3 * n);
    d->view_level = place(&l, n);
    d->view_last = place(&l, n);
    d->view_up = place(&l, n);
    d->view_down = place(&l, n);
    d->view_same = place(&l, n);
    d->view_missing = place(&l, n);
    d->view_centre = place(&l, n);
    d->tiers.closed = place(&l, n);
    d->tiers.contradicted = place(&l, n);
    d->tiers.forced = place(&l, n);
    d->usable = place(&l, n);
    d->absolute = place(&l, n);
    d->reading = place(&l, n);
    d->forecast = place(&l, n);
    d->own = place(&l, n);
    d->ahead = place(&l, n);
    d->used = place(&l, n);
    d->doubt = place(&l, n);
    d->shares = place(&l, n);
    d->scratch = place(&l, (m->has_diagnosis ? 5 : 3) * n);
    if (m->has_diagnosis) place_diagnosis(d, &l, n);
    d->arena = (int8_t *)place(&l, (m->arena + 3) / 4);
    return l.next;
}

size_t gruard_memory(const gruard_model *model) {
    gruard_detector unused;
    return sizeof(float) * place_all(&unused, model, NULL);
}

gruard_error gruard_start(gruard_detector *d, const gruard_model *m, void *memory, size_t size) {
    if ((uintptr_t)memory % 4) return GRUARD_UNALIGNED;
    const size_t needed = gruard_memory(m);
    if (size < needed) return GRUARD_NO_MEMORY;
    memset(d, 0, sizeof *d);
    memset(memory, 0, needed);
    place_all(d, m, memory);
    d->model = m;
    d->threshold = m->threshold;
    d->clear = m->clear;
    for (uint32_t i = 0; i < m->channels; i++) {
        d->last[i] = __builtin_nanf("");
        d->since[i] = 1.0f;
    }
    gruard_start_score(d, 0);
    gruard_start_tiers(&d->tiers, m);
    return GRUARD_OK;
}

void gruard_reset(gruard_detector *d) {
    d->started = 0;
    gruard_start_score(d, 0);
    gruard_restart_tiers(&d->tiers, d->model);
    if (d->model->has_diagnosis) gruard_start_diagnosis(d);
}

void gruard_distrust(gruard_detector *d) {
    d->started = 0;
    gruard_distrust_tiers(&d->tiers, d->model);
}

static int within(const float *values, size_t count, float bound) {
    int yes = 1;
    for (size_t i = 0; i < count; i++) yes &= gruard_abs(values[i]) <= bound; /* not so for NaN */
    return yes;
}

/* The int8 range of a gate can end a little beyond 1. */
static float gate_limit(const gruard_model *m) {
    const gruard_end *codes = (const gruard_end *)m->outputs + GRUARD_GATE_NEXT;
    if (!m->gated) return 1.0f;
    const float low = gruard_dequantise(-128, codes->scale, codes->zero_point);
    const float high = gruard_dequantise(127, codes->scale, codes->zero_point);
    return gruard_at_least(gruard_at_least(gruard_abs(low), gruard_abs(high)), 1.0f);
}

int gruard_state_is_possible(const gruard_detector *d) {
    const gruard_model *m = d->model;
    const size_t n = m->channels, all = gruard_heights(m);
    if (!within(d->parts, all, FLT_MAX) || !within(d->terms, 3 * n, FLT_MAX) ||
        !within(d->baselines, all, FLT_MAX) || !within(d->recorded, all, FLT_MAX) ||
        !within(d->pulled, 3 * n, FLT_MAX) ||
        !within(d->centre, n, GRUARD_VALUE_CLIP) || !within(d->standing, n, GRUARD_VALUE_CLIP))
        return 0;
    if (!d->started) return 1;
    return within(d->hidden, m->states, 1.0f) && within(d->gate, n, gate_limit(m)) &&
           within(d->mask, n, 1.0f) && within(d->history, m->depth * n, GRUARD_VALUE_CLIP) &&
           within(d->value, n, GRUARD_VALUE_CLIP) && within(d->correction, n, FLT_MAX);
}

void gruard_set_threshold(gruard_detector *d, float threshold, float clear) {
    d->threshold = threshold;
    d->clear = clear;
}

/* The recurrent state of a machine that has always been at the present reading. */
static void start_recurrent(gruard_detector *d) {
    const gruard_model *m = d->model;
    const size_t bytes = m->channels * sizeof(float);
    for (uint32_t lag = 0; lag < m->depth; lag++)
        memcpy(d->history + lag * m->channels, d->reading, bytes);
    memset(d->hidden, 0, m->states * sizeof(float));
    memset(d->correction, 0, bytes);
    memset(d->mask, 0, bytes);
    memcpy(d->value, d->reading, bytes);
    for (uint32_t i = 0; i < m->channels; i++) d->gate[i] = 1.0f;
    d->started = 1;
}

/* start + sum over the lags of factors [order][n] times the history, of channel i. */
static inline float along_lags(const gruard_detector *d, const gruard_float *factors, uint32_t i,
                               float start) {
    const uint32_t n = d->model->channels, order = d->model->order;
    const float *past = d->history + i;
    factors += i;
    for (uint32_t lag = 0; lag < order; lag++, factors += n, past += n) start += *factors * *past;
    return start;
}

GRUARD_HOT static void forecast(gruard_detector *d) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    float *const crossed = d->scratch, *const forecasts = d->forecast;
    const float *const correction = d->correction;
    if (m->has_cross) gruard_matvec(m->cross, n, m->order * n, d->history, crossed);
    for (uint32_t i = 0; i < n; i++) {
        float total = along_lags(d, m->highway, i, m->innovation_scale[i] * correction[i]);
        if (m->has_cross) total += crossed[i];
        forecasts[i] = gruard_clip(total, GRUARD_FORECAST_CLIP);
    }
}

/* The own forecast and the one ahead: edge_runtime.detector.linear. */
GRUARD_HOT static void forecast_otherwise(gruard_detector *d) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    float *const own = d->own, *const ahead = d->ahead;
    for (uint32_t i = 0; m->has_own && i < n; i++)
        own[i] = gruard_clip(along_lags(d, m->own, i, 0), GRUARD_FORECAST_CLIP);
    if (!m->horizon) return;
    gruard_matvec(m->ahead, n, m->order * n, d->history + (m->horizon - 1) * n, ahead);
    for (uint32_t i = 0; i < n; i++) ahead[i] = gruard_clip(ahead[i], GRUARD_FORECAST_CLIP);
}

GRUARD_WIDE GRUARD_HOT static void quantise(const float *restrict values, gruard_end end,
                                            int8_t *restrict codes) {
#ifdef GRUARD_ROUNDS
    float all = 0; /* NaN if one of them is */
    for (uint32_t i = 0; i < end.count; i++) {
        const float code = values[i] / end.scale;
        all += code;
        codes[i] = gruard_rounded(code, (int32_t)end.zero_point);
    }
    if (all == all) return;
#endif
    for (uint32_t i = 0; i < end.count; i++)
        codes[i] = gruard_quantise(values[i], end.scale, end.zero_point);
}

static void feed(gruard_detector *d, uint32_t input, const float *values) {
    const gruard_end end = ((const gruard_end *)d->model->inputs)[input];
#ifdef GRUARD_HOST
    if (d->graph) {
        const size_t at = input < GRUARD_STATE ? 0 : (size_t)(values - d->hidden);
        const uint32_t vectors = input < GRUARD_STATE ? input : GRUARD_STATE;
        const uint32_t n = d->model->channels;
        memcpy(d->graph->inputs + vectors * n + at, values,
               (input < GRUARD_STATE ? n : end.count) * sizeof(float));
        return;
    }
#endif
    if (end.place != GRUARD_ABSENT) quantise(values, end, d->arena + end.place);
}

/* An exogenous channel moved in a gap, so the gate would reject the machine's response. */
static int input_stepped(const gruard_detector *d) {
    const gruard_model *m = d->model;
    if (!gruard_ends_gap(d, d->usable)) return 0;
    for (uint32_t i = 0; i < m->channels; i++)
        if (d->usable[i] > m->watched[i] &&
            gruard_abs(d->reading[i] - d->forecast[i]) >= GRUARD_INPUT_STEP)
            return 1;
    return 0;
}

GRUARD_HOT static void feed_graph(gruard_detector *d) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    const float *const reading = d->reading, *const forecasts = d->forecast, *const used = d->used;
    const float *const value = d->value, *const mask = d->mask, *hidden = d->hidden;
    float *const one = d->scratch, *const other = one + n;
    const int stepped = input_stepped(d);
    for (uint32_t i = 0; i < n; i++) {
        const float apart = reading[i] - forecasts[i];
        one[i] = used[i] * gruard_clip(apart, GRUARD_GRAPH_INNOVATION_CLIP);
        other[i] = used[i] * gruard_clip(apart / m->innovation_scale[i], GRUARD_EVIDENCE_CLIP) /
                   GRUARD_EVIDENCE_CLIP;
    }
    feed(d, GRUARD_INNOVATION, one);
    feed(d, GRUARD_EVIDENCE, other);
    for (uint32_t i = 0; i < n; i++) {
        const float moved = (reading[i] - value[i]) / m->innovation_scale[i];
        one[i] = gruard_abs(other[i]);
        other[i] = used[i] * mask[i] * gruard_clip(moved, GRUARD_EVIDENCE_CLIP) /
                   GRUARD_EVIDENCE_CLIP;
    }
    feed(d, GRUARD_MAGNITUDE, one);
    feed(d, GRUARD_DIFFERENCE, other);
    for (uint32_t i = 0; i < n; i++) {
        const float open = (float)(stepped || gruard_held_open(&d->tiers, i));
        one[i] = gruard_clip(forecasts[i], GRUARD_GRAPH_FORECAST_CLIP);
        other[i] = used[i] * m->gated_channels[i] * (1.0f - open);
    }
    feed(d, GRUARD_FORECAST, one);
    feed(d, GRUARD_GUARDED, other);
    feed(d, GRUARD_MASK, d->used);
    feed(d, GRUARD_GATE, d->gate);
    for (uint32_t layer = 0; layer < m->layers; hidden += m->units[layer], layer++)
        feed(d, GRUARD_STATE + layer, hidden);
}

static void fetch(const gruard_detector *d, uint32_t output, float *values) {
    const gruard_end end = ((const gruard_end *)d->model->outputs)[output];
    const int8_t *codes = d->arena + end.place;
    for (uint32_t i = 0; i < end.count; i++)
        values[i] = gruard_dequantise(codes[i], end.scale, end.zero_point);
}

/* Gate, doubt and correction; without a gate every usable reading is trusted. */
static void fetch_gate(gruard_detector *d) {
    const gruard_model *m = d->model;
    const gruard_end *logit = (const gruard_end *)m->outputs + GRUARD_LOGIT;
    if (m->layers) fetch(d, GRUARD_CORRECTION, d->correction);
    if (m->gated) fetch(d, GRUARD_GATE_NEXT, d->gate);
    else memcpy(d->gate, d->used, m->channels * sizeof(float));
    for (uint32_t i = 0; i < m->channels; i++)
        d->doubt[i] = m->gated ? m->softplus[d->arena[logit->place + i] + 128] : 0.0f;
}

/* h <- n + z (h - n). Returns whether any unit moved; counts those outside (low, high). */
GRUARD_WIDE GRUARD_HOT static int blend_layer(
    float *restrict hidden, const int8_t *restrict arena, gruard_end update, gruard_end candidate,
    float low, float high, int32_t *outside) {
    const int8_t *z = arena + update.place, *n = arena + candidate.place;
    int moved = 0;
    int32_t edge = 0;
    for (uint32_t i = 0; i < update.count; i++) {
        const float target = gruard_dequantise(n[i], candidate.scale, candidate.zero_point);
        const float keep = gruard_dequantise(z[i], update.scale, update.zero_point);
        const float after = target + keep * (hidden[i] - target);
#ifdef GRUARD_HOST
        moved |= after != hidden[i];
        edge += (after <= low) | (after >= high);
#else /* a branch is cheaper than a truth value */
        if (!moved) moved = after != hidden[i];
        if (after <= low || after >= high) edge++;
#endif
        hidden[i] = after;
    }
    *outside += edge;
    return moved;
}

/* Advance every layer's state. Returns whether any unit moved; saturated: how many are at the edge
 * of their int8 range. */
static int blend(gruard_detector *d, int32_t *saturated) {
    const gruard_model *m = d->model;
    float *hidden = d->hidden;
    int moved = !m->layers;
    *saturated = 0;
    for (uint32_t layer = 0; layer < m->layers; hidden += m->units[layer], layer++) {
        const gruard_end *ends = (const gruard_end *)m->outputs + GRUARD_UPDATE + 2 * layer;
        moved |= blend_layer(hidden, d->arena, ends[0], ends[1], m->state_low[layer],
                             m->state_high[layer], saturated);
    }
    return moved;
}

#ifdef GRUARD_HOST
/* As fetch_gate and blend, for the host's graph. */
static int take_from_host(gruard_detector *d, int32_t *saturated) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    const float *output = d->graph->outputs + 3 * n;
    float *hidden = d->hidden;
    int moved = !m->layers;
    *saturated = 0;
    memcpy(d->gate, m->gated ? d->graph->outputs : d->used, n * sizeof(float));
    memset(d->doubt, 0, n * sizeof(float));
    if (m->gated) memcpy(d->doubt, d->graph->outputs + n, n * sizeof(float));
    if (m->layers) memcpy(d->correction, d->graph->outputs + 2 * n, n * sizeof(float));
    for (uint32_t layer = 0; layer < m->layers; hidden += m->units[layer], layer++) {
        const uint32_t units = m->units[layer];
        const float *update = output, *candidate = output + units;
        for (uint32_t i = 0; i < units; i++) {
            const float after = candidate[i] + update[i] * (hidden[i] - candidate[i]);
            moved |= after != hidden[i];
            *saturated += (after <= m->state_low[layer]) | (after >= m->state_high[layer]);
            hidden[i] = after;
        }
        output += 2 * units;
    }
    return moved;
}

static int run_host_graph(gruard_detector *d, int32_t *saturated) {
    feed_graph(d);
    d->graph->run(d->graph);
    return take_from_host(d, saturated);
}
#endif

static int run_own_graph(gruard_detector *d, int32_t *saturated) {
    if (d->model->operators) {
        feed_graph(d);
        GRUARD_MARK(GRUARD_FED);
        gruard_run_graph(d->model, d->arena);
        GRUARD_MARK(GRUARD_RUN);
    }
    fetch_gate(d);
    return blend(d, saturated);
}

/* Move `count` values up by `by`. A small C library's memmove takes one byte at a time. */
static void make_room(float *values, size_t count, size_t by) {
    for (; count % 4; count--) values[count - 1 + by] = values[count - 1];
    for (float *from = values + count; from > values; from -= 4) {
        const float a = from[-1], b = from[-2], c = from[-3], d = from[-4];
        float *const to = from + by;
        to[-1] = a, to[-2] = b, to[-3] = c, to[-4] = d;
    }
}

/* Run the graph once and advance the recurrent state. */
static void advance(gruard_detector *d, int *moved, int *input_moved, int32_t *saturated) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    const int free_run = d->tiers.phase == GRUARD_PHASE_FREE_RUN;
    forecast(d);
    forecast_otherwise(d);
    for (uint32_t i = 0; i < n; i++) /* a free run ignores every gated reading */
        d->used[i] = free_run ? d->usable[i] * (1.0f - m->gated_channels[i]) : d->usable[i];
    GRUARD_MARK(GRUARD_FORECASTED);
#ifdef GRUARD_HOST
    *moved = (d->graph ? run_host_graph : run_own_graph)(d, saturated);
#else
    *moved = run_own_graph(d, saturated);
#endif
    *input_moved = 0;
    make_room(d->history, (m->depth - 1) * n, n);
    for (uint32_t i = 0; i < n; i++) {
        const float apart = d->reading[i] - d->forecast[i];
        d->history[i] = d->forecast[i] + d->gate[i] *
                        (d->used[i] * gruard_clip(apart, GRUARD_INNOVATION_CLIP));
        *input_moved |= d->value[i] != d->reading[i];
        d->value[i] = d->reading[i];
        d->mask[i] = d->usable[i];
    }
#ifdef GRUARD_HOST
    if (d->graph) d->graph->settling = gruard_settling(d);
#endif
}

/* Warm-up raises no alarm, and tier 2 clears none. */
static void update_alarm(gruard_detector *d, int tier) {
    const uint8_t before = d->alarm.active;
    gruard_update_alarm(&d->alarm, d->here, d->threshold, d->clear, d->model);
    if (d->tiers.warmup > 0) d->alarm.active &= before;
    else if (tier == 2) d->alarm.active |= before;
}

static uint16_t phase_flags(const gruard_detector *d) {
    const gruard_tiers *t = &d->tiers;
    uint16_t flags = t->warmup > 0 ? GRUARD_WARMUP : 0;
    if (t->phase == GRUARD_PHASE_FREE_RUN) flags |= GRUARD_FREE_RUN;
    for (uint32_t i = 0; i < d->model->channels; i++)
        if (gruard_held_open(t, i)) flags |= GRUARD_RESYNC;
    return flags;
}

static void tell_channels(const gruard_detector *d, gruard_record *record) {
    for (uint32_t i = 0; i < d->model->channels; i++) {
        const uint32_t bit = 1u << (i % 32);
        if (!(d->mask[i] > 0)) record->masked[i / 32] |= bit;
        if (!(d->mask[i] > 0) ||
            (d->gate[i] < GRUARD_CLOSED_BELOW && d->model->watched[i] > 0))
            record->imputed[i / 32] |= bit;
    }
}

static void tell_fallback(const gruard_detector *d, gruard_record *record) {
    record->flags |= GRUARD_FALLBACK;
    record->score = d->fallback_score;
    record->alarm = d->fallback_alarmed;
    if (record->alarm) gruard_blame_fallback(d, record->blamed);
}

static void tell(gruard_detector *d, gruard_record *record) {
    record->valid = record->tier != 3;
    tell_channels(d, record);
    for (uint32_t word = 0; word < GRUARD_WORDS; word++)
        if (record->imputed[word]) record->flags |= GRUARD_IMPUTED;
    if (record->tier == 3) {
        tell_fallback(d, record);
        return;
    }
    record->score = d->changed == GRUARD_ACCEPTED ? d->here : d->score;
    record->alarm = d->alarm.active;
    if (!record->alarm) return;
    if (d->model->has_diagnosis) gruard_tell_diagnosis(d, record);
    /* If the diagnosis blames no channel, name those behind the score. */
    if (record->blamed[0] < 0) gruard_blame_score(d, record->blamed);
}

/* Empty the record, then do what both detectors do first. */
static void begin(gruard_detector *d, const float *values, gruard_record *record) {
    memset(record, 0, sizeof *record);
    memset(record->blamed, 0xFF, sizeof record->blamed);
    record->kind = -1;
    record->index = d->tiers.index;
    d->center = d->model->center;
    d->scale = d->model->scale;
    gruard_check_validity(d, values);
    gruard_standardise(d, values, d->usable, d->reading);
    gruard_fallback(d);
}

void gruard_step_fallback(gruard_detector *d, const float *values, gruard_record *record) {
    begin(d, values, record);
    record->tier = 3;
    for (uint32_t i = 0; i < d->model->channels; i++)
        if (!(d->usable[i] > 0)) record->masked[i / 32] |= 1u << (i % 32);
    tell_fallback(d, record);
    d->tiers.index++;
}

void gruard_step(gruard_detector *d, const float *values, gruard_record *record) {
    const gruard_model *m = d->model;
    int moved, input_moved;
    int32_t saturated;
    const int flagged = d->changed == GRUARD_HAS_CHANGED;
    begin(d, values, record);
    if (m->modes) {
        gruard_find_mode(d, values);
        gruard_standardise(d, values, d->usable, d->reading);
    }
    gruard_take_stand(d);
    if (!d->started) start_recurrent(d);
    record->tier = (uint8_t)gruard_tier(&d->tiers, m);
    record->flags = phase_flags(d);
    GRUARD_MARK(GRUARD_READ);
    advance(d, &moved, &input_moved, &saturated);
    GRUARD_MARK(GRUARD_BLENDED);
    gruard_score(d);
    if (d->measured) update_alarm(d, record->tier);
    const int settling = gruard_settling(d);
    const int reset = gruard_observe(d, moved, input_moved, saturated);
    gruard_agree(&d->tiers, d->alarm.active == d->fallback_alarmed, m);
    GRUARD_MARK(GRUARD_SCORED);
    if (m->has_diagnosis && d->measured) gruard_advance_diagnosis(d, values);
    GRUARD_MARK(GRUARD_DIAGNOSED);
    tell(d, record);
    if (d->measured) gruard_change(d, settling);
    if (flagged || d->changed == GRUARD_HAS_CHANGED) record->flags |= GRUARD_CHANGED;
    if (m->modes && d->unknown_mode) record->flags |= GRUARD_UNKNOWN_MODE;
    GRUARD_MARK(GRUARD_TOLD);
    if (!reset) return;
    record->flags |= GRUARD_RESET;
    d->started = 0;
    gruard_start_score(d, 1);
}
