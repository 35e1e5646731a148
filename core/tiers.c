/* Tiers 1 and 2, failure and bounded recovery: edge_runtime.detector.tiers. */
#include "numerics.h"
#include "parts.h"

static void settle(gruard_tiers *t, const gruard_model *m) {
    const size_t bytes = m->channels * sizeof(float);
    memset(t->closed, 0, bytes);
    memset(t->contradicted, 0, bytes);
    memset(t->forced, 0, bytes);
    t->phase = GRUARD_PHASE_GATE;
    t->left = t->lost = 0;
    t->blind = t->outage = 0;
}

void gruard_start_tiers(gruard_tiers *t, const gruard_model *m) {
    settle(t, m);
    t->warmup = m->warmup; /* the state has to settle first */
    t->gap = t->frozen = t->agreed = 0;
    t->distrusted = t->resync_count = t->reset_count = t->return_count = 0;
    t->index = 0;
}

void gruard_restart_tiers(gruard_tiers *t, const gruard_model *m) {
    settle(t, m);
    t->frozen = 0;
    t->warmup = m->warmup;
}

void gruard_distrust_tiers(gruard_tiers *t, const gruard_model *m) {
    settle(t, m);
    t->distrusted = 1;
    t->agreed = t->frozen = 0;
    t->warmup = m->warmup;
}

static int any_forced(const gruard_tiers *t, const gruard_model *m) {
    for (uint32_t i = 0; i < m->channels; i++)
        if (t->forced[i] > 0) return 1;
    return 0;
}

int gruard_tier(const gruard_tiers *t, const gruard_model *m) {
    if (t->distrusted || t->warmup > 0 || t->blind) return 3;
    return t->phase != GRUARD_PHASE_GATE || any_forced(t, m) ? 2 : 1;
}

int gruard_held_open(const gruard_tiers *t, uint32_t channel) {
    return t->phase == GRUARD_PHASE_RESYNC || t->forced[channel] > 0;
}

/* Keep the events of the last `window` samples and return their number. */
static uint8_t recent(uint64_t *events, uint8_t count, uint64_t now, uint32_t window) {
    uint8_t kept = 0;
    for (uint8_t i = 0; i < count; i++)
        if (now - events[i] < window) events[kept++] = events[i];
    return kept;
}

static int lose(gruard_tiers *t, const gruard_model *m) {
    uint64_t events[3];
    memcpy(events, t->resyncs, sizeof events);
    const uint8_t count = recent(events, t->resync_count, t->index, m->window);
    if (count < GRUARD_RESYNCS_BEFORE_RESET) {
        settle(t, m);
        memcpy(t->resyncs, events, sizeof events);
        t->resync_count = count;
        t->phase = GRUARD_PHASE_FREE_RUN;
        t->left = m->free_run_limit;
        return 0;
    }
    uint64_t resets[1] = {t->resets[0]};
    if (recent(resets, t->reset_count, t->index, m->window)) {
        gruard_distrust_tiers(t, m);
        return 1;
    }
    settle(t, m);
    t->resync_count = 0;
    t->resets[0] = t->index;
    t->reset_count = 1;
    t->warmup = m->warmup;
    return 1;
}

static int must_reopen(const gruard_tiers *t, const gruard_model *m, uint32_t i) {
    return t->closed[i] >= (float)m->closed_limit ||
           t->contradicted[i] >= (float)m->contradiction_limit;
}

static int gate_phase(gruard_detector *d) {
    gruard_tiers *t = &d->tiers;
    const gruard_model *m = d->model;
    uint32_t shut_count = 0, gated_count = 0;
    int reopened = 0;
    for (uint32_t i = 0; i < m->channels; i++) {
        const int known = m->gated_channels[i] > 0 && d->mask[i] > 0;
        const int shut = known && d->gate[i] < GRUARD_CLOSED_BELOW;
        const float apart = gruard_abs(d->reading[i] - d->forecast[i]);
        const float innovation =
            gruard_at_most(apart / m->innovation_scale[i], GRUARD_EVIDENCE_CLIP);
        const int wrong = shut ? innovation < GRUARD_TINY_INNOVATION
                               : known && innovation >= GRUARD_HUGE_INNOVATION;
        gated_count += m->gated_channels[i] > 0;
        shut_count += (uint32_t)shut;
        t->closed[i] = shut ? t->closed[i] + 1.0f : gruard_at_least(t->closed[i] - 2.0f, 0.0f);
        /* A gate that is held open does not decide, so it cannot contradict the evidence. */
        t->contradicted[i] = wrong && t->forced[i] == 0 ? t->contradicted[i] + 1.0f : 0.0f;
        reopened |= must_reopen(t, m, i);
    }
    const int half = gated_count && 2 * shut_count >= gated_count;
    const int32_t lost = half ? t->lost + 1 : 0;
    if (lost >= m->lost_limit) return lose(t, m);
    t->lost = lost;
    for (uint32_t i = 0; reopened && i < m->channels; i++) {
        if (!must_reopen(t, m, i)) continue;
        t->closed[i] = t->contradicted[i] = 0;
        t->forced[i] = (float)m->resync_channel;
    }
    return 0;
}

/* Handle a row beyond what the state can bridge. */
static void outage(gruard_tiers *t, const gruard_model *m) {
    if (t->phase == GRUARD_PHASE_GATE) {
        settle(t, m);
        t->phase = GRUARD_PHASE_FREE_RUN;
        t->left = m->free_run_limit;
        t->outage = 1;
        return;
    }
    /* There is nothing to synchronise with: continue the free run, beyond its bound. */
    if (t->phase == GRUARD_PHASE_RESYNC) t->left = 0;
    t->phase = GRUARD_PHASE_FREE_RUN;
    t->left = t->left > 1 ? t->left - 1 : 0;
    t->blind = t->left == 0;
}

static void free_run_phase(gruard_tiers *t, const gruard_model *m) {
    t->left = t->left > 1 ? t->left - 1 : 0;
    if (t->left > 0 && !t->outage) return; /* an outage ends with the first reading */
    t->phase = GRUARD_PHASE_RESYNC;
    t->left = m->resync_all;
    t->blind = 0;
}

static void resync_phase(gruard_tiers *t, const gruard_model *m) {
    const int failed = !t->outage;
    t->left--;
    if (t->left > 0) return;
    settle(t, m);
    if (failed && t->resync_count < 3) t->resyncs[t->resync_count++] = t->index;
}

static int mostly_masked(const gruard_model *m, const float *mask) {
    uint32_t watched = 0, masked = 0;
    for (uint32_t i = 0; i < m->channels; i++) {
        watched += m->watched[i] > 0;
        masked += m->watched[i] > 0 && !(mask[i] > 0);
    }
    return 2 * masked > watched;
}

/* Whether a row with this mask is the first with readings after missing ones. */
int gruard_ends_gap(const gruard_detector *d, const float *mask) {
    return d->tiers.gap > 0 && !mostly_masked(d->model, mask);
}

int gruard_settling(const gruard_detector *d) {
    const gruard_tiers *t = &d->tiers;
    return t->warmup > 0 || t->outage || gruard_ends_gap(d, d->mask);
}

int gruard_observe(gruard_detector *d, int moved, int input_moved, int32_t saturated) {
    gruard_tiers *t = &d->tiers;
    const gruard_model *m = d->model;
    t->index++;
    if (mostly_masked(m, d->mask)) {
        t->gap += t->gap <= m->bridge; /* a higher count makes no difference */
        if (t->gap > m->bridge) outage(t, m);
        return 0;
    }
    t->gap = 0;
    if (t->warmup > 0) t->warmup--;
    for (uint32_t i = 0; i < m->channels; i++)
        t->forced[i] = gruard_at_least(t->forced[i] - 1.0f, 0.0f);
    const int32_t frozen = input_moved && !moved ? t->frozen + 1 : 0;
    if (saturated > m->saturated_most || frozen >= m->frozen_limit) {
        gruard_distrust_tiers(t, m);
        return 1;
    }
    t->frozen = frozen;
    if (t->phase == GRUARD_PHASE_GATE) return gate_phase(d);
    if (t->phase == GRUARD_PHASE_FREE_RUN) free_run_phase(t, m);
    else resync_phase(t, m);
    return 0;
}

void gruard_agree(gruard_tiers *t, int same_verdict, const gruard_model *m) {
    if (!t->distrusted || t->warmup > 0 || t->gap) return;
    t->agreed = same_verdict ? t->agreed + (t->agreed < m->agree) : 0;
    uint64_t events[3];
    memcpy(events, t->returns, sizeof events);
    uint8_t count = recent(events, t->return_count, t->index, m->hour);
    if (t->agreed < m->agree || count >= GRUARD_RETURNS_PER_HOUR) return;
    events[count++] = t->index;
    memcpy(t->returns, events, sizeof events);
    t->return_count = count;
    t->distrusted = 0;
    t->agreed = 0;
    t->resync_count = t->reset_count = 0;
}
