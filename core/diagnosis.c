/* Which channels an alarm is about and what kind of fault they show: edge_runtime.diagnosis.
 *
 * Three views of each channel, z = (x - fast, fast - slow, slow) less their clean means; O is the
 * inverse of the clean covariance of all views. Vectors of views are ordered by view first.
 */
#include "numerics.h"
#include "parts.h"

enum { VIEWS = GRUARD_DIAGNOSIS_VIEWS, SENSOR_KINDS = GRUARD_MACHINE,
       REST_AND_SILENT = GRUARD_MACHINE_WEIGHTS - 1, SHAPES = (GRUARD_KIND_WEIGHTS - 1) / 2 };
/* Rows of the decaying sums; the first nine are what a sample adds while its age is 0. */
enum { COUNT, FAULT, FAULT2, EXPECTED, EXPECTED2, EXPECTED_FAULT, MOVE, JUMP, SPREAD, AGE,
       AGE_FAULT, AGE2, EXPLAINED, OTHER_FAULT, OTHER_EXPLAINED, MISSING, SUMS = GRUARD_SUMS };
/* Rows of the peaks. */
enum { PEAK_FAULT, PEAK_JUMP_OUT, PEAK_JUMP_BACK, PEAK_OTHER_FAULT, PEAKS = GRUARD_PEAKS };

void gruard_start_diagnosis(gruard_detector *d) {
    const size_t n = d->model->channels;
    memset(d->x, 0, n * sizeof(float));
    memset(d->averages, 0, 2 * n * sizeof(float));
    memset(d->fault, 0, n * sizeof(float));
    memset(d->repeats, 0, n * sizeof(float));
    memset(d->known, 0, n * sizeof(float));
    memset(d->sums, 0, SUMS * n * sizeof(float));
    memset(d->peaks, 0, PEAKS * n * sizeof(float));
    memset(d->chances, 0, sizeof d->chances);
    d->seen = d->age = d->distance = 0;
    d->followed = 0;
}

/* ---- contributions ---- */

/* r and f of every channel from O z, into the caller's vectors. */
GRUARD_HOT static void explain(gruard_detector *d, float *explained, float *fault) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    for (uint32_t i = 0; i < n; i++) {
        const gruard_float *block = m->block + i;
        const float *z = d->weighted + i;
        const float fast = z[0], middle = z[n], slow = z[2 * n];
        float v[VIEWS];
        for (uint32_t k = 0; k < VIEWS; k++, block += VIEWS * n) {
            v[k] = block[0] * fast + block[n] * middle + block[2 * n] * slow;
            d->reconstruction[k * n + i] = v[k];
        }
        explained[i] = fast * v[0] + middle * v[1] + slow * v[2];
        fault[i] = (v[0] + v[1] + v[2]) / m->deviation[i];
    }
}

/* D, v, r and f of one sample; returns D. */
static float contributions(gruard_detector *d) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    float *views = d->scratch, total;
    for (uint32_t i = 0; i < n; i++) {
        const float fast = d->averages[i], slow = d->averages[n + i];
        views[i] = d->x[i] - fast - m->view_center[i];
        views[n + i] = fast - slow - m->view_center[n + i];
        views[2 * n + i] = slow - m->view_center[2 * n + i];
    }
    gruard_matvec(m->precision, VIEWS * n, VIEWS * n, views, d->weighted);
    total = gruard_dot(views, d->weighted, VIEWS * n);
    explain(d, d->explained, d->own_fault);
    return total;
}

/* Contributions of all channels after `channel` is replaced by its reconstruction. */
static void leave_out(gruard_detector *d, uint32_t channel) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    const uint32_t apart = VIEWS * n * n; /* from one view's column to the next one's */
    const gruard_float *column = m->precision + VIEWS * n * channel;
    float fault[VIEWS];
    for (uint32_t v = 0; v < VIEWS; v++) fault[v] = d->reconstruction[v * n + channel];
    float *const weighted = d->weighted;
    for (uint32_t r = 0; r < VIEWS * n; r++)
        weighted[r] -= column[r] * fault[0] + column[apart + r] * fault[1] +
                       column[2 * apart + r] * fault[2];
    explain(d, d->other_explained, d->other_fault);
}

/* ---- symptoms ---- */

static float suspicion(const gruard_detector *d, uint32_t i) {
    const gruard_model *m = d->model;
    const float explained = d->sums[i * SUMS + EXPLAINED] - d->seen * m->explained_mean[i];
    const float stuck = gruard_at_least(d->repeats[i] - m->longest_repeat[i], 0.0f);
    const float absent = GRUARD_MISSING_WORTH * (d->sums[i * SUMS + MISSING] + stuck);
    return (gruard_at_least(explained, 0.0f) + absent) * m->blameable[i];
}

static uint32_t most_suspicious(const gruard_detector *d, const float *more) {
    uint32_t best = 0;
    float most = 0;
    for (uint32_t i = 0; i < d->model->channels; i++) {
        float now = suspicion(d, i);
        if (more) now += more[i] * d->model->blameable[i];
        if (i == 0 || now > most) {
            most = now;
            best = i;
        }
    }
    return best;
}

/* Age the sums of channel `i` before this sample; a fault that is much larger than the past ones
 * makes the sums small. */
static void age_sums(gruard_detector *d, uint32_t i, float keep, float square) {
    float *of = d->sums + i * SUMS;
    const float known = GRUARD_DWARFED * (d->peaks[i * PEAKS + PEAK_FAULT] + 1.0f);
    const float relevance = gruard_at_most(known / gruard_at_least(square, 1.0f), 1.0f);
    of[AGE2] += 2.0f * of[AGE] + of[COUNT];
    of[AGE] += of[COUNT];
    of[AGE_FAULT] += of[FAULT];
#pragma GCC unroll 12
    for (uint32_t row = 0; row < EXPLAINED; row++) of[row] = of[row] * keep * relevance;
#pragma GCC unroll 4
    for (uint32_t row = EXPLAINED; row < SUMS; row++) of[row] *= keep;
}

static void add_news(gruard_detector *d, uint32_t i, float present, float move, float jump,
                     float square) {
    const gruard_model *m = d->model;
    float *of = d->sums + i * SUMS;
    const float fault = d->own_fault[i];
    const float peak = d->peaks[i * PEAKS + PEAK_FAULT];
    const float weight =
        present * (square / (square + GRUARD_CLEAR_FAULT + GRUARD_SMALL_SHARE * peak));
    const float expected = d->x[i] / m->deviation[i] - fault;
    const float count = of[COUNT];
    const float off = (fault - of[FAULT] / gruard_at_least(count, 0.5f)) *
                      (float)(count > 0.5f);
    const float moved = GRUARD_MOVE_GAIN * (move * move / m->move_mean[i]);
    of[COUNT] += weight;
    of[FAULT] += fault * weight;
    of[FAULT2] += square * weight;
    of[EXPECTED] += expected * weight;
    of[EXPECTED2] += expected * expected * weight;
    of[EXPECTED_FAULT] += expected * fault * weight;
    of[MOVE] += gruard_log(1.0f + moved, m->log_table) * weight;
    of[JUMP] += gruard_log(1.0f + jump, m->log_table) * weight;
    of[SPREAD] += gruard_log(1.0f + off * off, m->log_table) * weight;
}

static void raise(float *peak, float keep, float latest) {
    *peak = gruard_at_least(keep * *peak, latest);
}

/* Update channel `i` with this sample. weight: how far the sample stands out. */
static void observe_channel(gruard_detector *d, uint32_t i, float present, float move, float keep,
                            float weight) {
    const gruard_model *m = d->model;
    const float fault = d->own_fault[i], square = fault * fault, before = d->fault[i];
    float *sums = d->sums + i * SUMS, *peaks = d->peaks + i * PEAKS;
    float jump = fault - before;
    jump = jump * jump / m->jump_mean[i] * d->known[i];
    age_sums(d, i, keep, square);
    add_news(d, i, present, move, jump, square);
    const float other = weight > 0 ? d->other_fault[i] : 0.0f;
    if (weight > 0) {
        sums[EXPLAINED] += weight * d->explained[i];
        sums[OTHER_FAULT] += weight * other;
        sums[OTHER_EXPLAINED] += weight * d->other_explained[i];
    }
    sums[MISSING] += 1.0f - present;
    const float out = jump * (float)(square > before * before);
    raise(&peaks[PEAK_FAULT], keep, square * present);
    raise(&peaks[PEAK_JUMP_OUT], keep, out * present);
    raise(&peaks[PEAK_JUMP_BACK], keep, (jump - out) * present);
    raise(&peaks[PEAK_OTHER_FAULT], keep, weight * (other * other) * present);
    d->fault[i] = fault;
    if (present > 0) {
        const int longest = d->repeats[i] > m->longest_repeat[i];
        d->repeats[i] = move == 0 ? d->repeats[i] + 1.0f : keep * d->repeats[i] * (float)longest;
        d->known[i] = 1.0f;
    }
}

/* Take the readings, with the last one where one is missing; moves: change of each. */
static void take_readings(gruard_detector *d, const float *present, float *moves) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    for (uint32_t i = 0; i < n; i++) {
        const float now = present[i] > 0 ? gruard_clip(moves[i], GRUARD_READING_CLIP) : d->x[i];
        if (!(d->known[i] > 0)) { /* as if it had always been there */
            d->x[i] = d->averages[i] = d->averages[n + i] = now;
            if (present[i] > 0) d->repeats[i] = -1.0f;
        }
        moves[i] = now - d->x[i];
        d->x[i] = now;
        for (uint32_t a = 0; a < 2; a++)
            d->averages[a * n + i] += m->view_smoothing[a] * (now - d->averages[a * n + i]);
    }
}

static float noticed(const gruard_detector *d) {
    float most = d->explained[0] / d->model->explained_high[0];
    for (uint32_t i = 1; i < d->model->channels; i++)
        most = gruard_at_least(most, d->explained[i] / d->model->explained_high[i]);
    most = gruard_at_least(most - GRUARD_NOTICED, 0.0f);
    return most / (most + GRUARD_NOTICED);
}

/* ---- verdict ---- */

/* What channel `i` explains beyond clean rows without `top`; 0 at `top`. */
static float left_over(const gruard_detector *d, uint32_t i, uint32_t top) {
    const gruard_model *m = d->model;
    const float left = d->sums[i * SUMS + OTHER_EXPLAINED] - d->seen * m->explained_mean[i];
    return i == top ? 0.0f : left * m->blameable[i];
}

static void rest_features(const gruard_detector *d, uint32_t top, float *found) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    const float seen = d->seen + GRUARD_TINY;
    float level = 0, most = 0, peak = 0;
    for (uint32_t i = 0; i < n; i++) {
        const float other = i == top ? 0.0f : m->blameable[i];
        const float fault = d->sums[i * SUMS + OTHER_FAULT];
        const float square = other * (fault * fault / seen / m->persistence[i]);
        const float left = left_over(d, i, top);
        const float highest = other * d->peaks[i * PEAKS + PEAK_OTHER_FAULT];
        level = i ? gruard_at_least(level, square) : square;
        most = i ? gruard_at_least(most, left) : left;
        peak = i ? gruard_at_least(peak, highest) : highest;
    }
    most = gruard_at_least(most, 0.0f);
    const float rest = gruard_at_least(d->distance - d->sums[top * SUMS + EXPLAINED], 0.0f);
    found[0] = rest / seen / m->distance_mean;
    found[1] = level;
    found[2] = most;
    found[3] = most / seen;
    found[4] = peak;
}

static void silent_features(const gruard_detector *d, uint32_t top, float *found) {
    const gruard_model *m = d->model;
    const float age = d->age + GRUARD_TINY;
    float least = 0;
    for (uint32_t i = 0; i < m->channels; i++) {
        const float missing = d->sums[i * SUMS + MISSING];
        const float now = missing + (1.0f - m->blameable[i]) * GRUARD_LARGEST;
        least = i ? gruard_at_most(least, now) : now;
    }
    found[0] = d->sums[top * SUMS + MISSING] / age;
    found[1] = gruard_at_most(least / age, 1.0f);
    found[2] = d->repeats[top] / (m->longest_repeat[top] + 1.0f);
}

/* Energies of the fault (mean, straight line, rest), its jumps, its slope on the expected
 * reading. */
static void shape_features(const gruard_detector *d, uint32_t top, float *found) {
    const float *of = d->sums + top * SUMS, *peaks = d->peaks + top * PEAKS;
    const float count = of[COUNT] + GRUARD_TINY;
    const float level = of[FAULT] * of[FAULT] / count;
    const float around = gruard_at_least(of[FAULT2] - level, 0.0f);
    const float ages = gruard_at_least(of[AGE2] - of[AGE] * of[AGE] / count, GRUARD_TINY);
    const float along = of[AGE_FAULT] - of[AGE] * of[FAULT] / count;
    const float ramp =
        of[COUNT] > GRUARD_FEW ? gruard_at_most(along * along / ages, around) : 0.0f;
    const float rough = around - ramp, energy = of[FAULT2] + GRUARD_TENTH;
    const float expected = gruard_at_least(
        of[EXPECTED2] - of[EXPECTED] * of[EXPECTED] / count, GRUARD_TENTH);
    const float common = of[EXPECTED_FAULT] - of[EXPECTED] * of[FAULT] / count;
    const float weight = of[COUNT] + GRUARD_TENTH;
    const float shape[] = {
        of[COUNT], d->seen / (d->age + GRUARD_TINY), level, ramp, rough,
        level / energy, ramp / energy, rough / energy, of[JUMP] / weight, peaks[PEAK_FAULT],
        peaks[PEAK_JUMP_OUT], peaks[PEAK_JUMP_BACK], of[SPREAD] / weight,
        of[MOVE] / weight, of[COUNT] / (d->seen + GRUARD_TENTH),
        gruard_clip(common / expected, 2.0f),
        gruard_at_most(common * common / expected / (around + GRUARD_TENTH), 1.0f),
    };
    memcpy(found, shape, sizeof shape);
}

/* Features of the most suspicious channel, standardised. */
static void features(const gruard_detector *d, float *found) {
    /* Counts and squares span many decades: the classifiers get log(1 + value) of them. */
    static const uint8_t logged[] = {0, 1, 2, 3, 4, 7, 8, 10, 11, 12, 17, 18, 19};
    const gruard_model *m = d->model;
    const uint32_t top = most_suspicious(d, NULL);
    rest_features(d, top, found);
    silent_features(d, top, found + 5);
    shape_features(d, top, found + REST_AND_SILENT);
    for (uint32_t i = 0; i < sizeof logged; i++)
        found[logged[i]] = gruard_log(1.0f + gruard_at_most(found[logged[i]], GRUARD_LARGEST),
                                      m->log_table);
    for (uint32_t i = 0; i < GRUARD_FEATURES; i++)
        found[i] = gruard_clip((found[i] - m->feature_center[i]) / m->feature_scale[i],
                               GRUARD_FEATURE_CLIP);
}

/* exp of a value <= 0 without a library. */
static float exponential(float value) {
    const float small = gruard_at_least(value, -GRUARD_LOGIT_CLIP) / (1 << GRUARD_HALVINGS);
    float power = 1.0f + small + small * small / 2.0f;
    for (uint32_t i = 0; i < GRUARD_HALVINGS; i++) power = power * power;
    return power;
}

static float kind_logit(const gruard_float *weights, const float *scaled) {
    float total = weights[0];
    for (uint32_t i = 0; i < SHAPES; i++) total += weights[1 + i] * scaled[i];
    for (uint32_t i = 0; i < SHAPES; i++)
        total += weights[1 + SHAPES + i] * (scaled[i] * scaled[i]);
    return total;
}

/* Probabilities of the kinds, summing to one. */
static void chances_now(const gruard_detector *d, float *now) {
    const gruard_model *m = d->model;
    float found[GRUARD_FEATURES], highest = 0;
    features(d, found);
    for (uint32_t k = 0; k < SENSOR_KINDS; k++) {
        now[k] = kind_logit(m->kinds + k * (1 + 2 * SHAPES), found + GRUARD_FEATURES - SHAPES);
        highest = k ? gruard_at_least(highest, now[k]) : now[k];
    }
    for (uint32_t k = 0; k < SENSOR_KINDS; k++) now[k] = exponential(now[k] - highest);
    const float logit = m->machine[0] + gruard_dot(m->machine + 1, found, REST_AND_SILENT);
    const float odds = exponential(-gruard_abs(logit));
    const float machine = (logit > 0 ? 1.0f : odds) / (1.0f + odds);
    const float total = gruard_sum(now, SENSOR_KINDS);
    for (uint32_t k = 0; k < SENSOR_KINDS; k++) now[k] = now[k] / total * (1.0f - machine);
    now[GRUARD_MACHINE] = machine;
}

static void follow(gruard_detector *d) {
    if (!d->alarm.active) {
        memset(d->chances, 0, sizeof d->chances);
        d->followed = 0;
        return;
    }
    float now[SENSOR_KINDS + 1];
    chances_now(d, now);
    if (d->followed < GRUARD_LONGEST_MEAN) d->followed++;
    for (uint32_t k = 0; k <= GRUARD_MACHINE; k++)
        d->chances[k] += (now[k] - d->chances[k]) / (float)d->followed;
}

void gruard_advance_diagnosis(gruard_detector *d, const float *values) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels;
    /* After the views in `scratch`: whether there was a reading, and its change. */
    float *present = d->scratch + VIEWS * n, *moves = present + n;
    for (uint32_t i = 0; i < n; i++) present[i] = (float)gruard_present(values[i]);
    gruard_standardise(d, values, present, moves);
    take_readings(d, present, moves);
    const float distance = contributions(d), weight = noticed(d);
    const float keep = d->alarm.active ? GRUARD_KEEP_ALARM : GRUARD_KEEP_CALM;
    if (weight > 0) leave_out(d, most_suspicious(d, d->explained));
    for (uint32_t i = 0; i < n; i++) observe_channel(d, i, present[i], moves[i], keep, weight);
    d->seen = keep * d->seen + weight;
    d->age = keep * d->age + 1.0f;
    d->distance = keep * d->distance + weight * distance;
    follow(d);
}

/* The most suspicious channel, then others that stand out without it. */
static void blame(const gruard_detector *d, int16_t *blamed) {
    const gruard_model *m = d->model;
    const uint32_t n = m->channels, first = most_suspicious(d, NULL);
    if (!(suspicion(d, first) > 0)) return;
    float *rest = d->scratch, most = 0;
    for (uint32_t i = 0; i < n; i++) {
        rest[i] = gruard_at_least(left_over(d, i, first), 0.0f);
        most = i ? gruard_at_least(most, rest[i]) : rest[i];
    }
    blamed[0] = (int16_t)first;
    uint32_t count = 1;
    int32_t before = -1;
    for (uint32_t rank = 1; rank < GRUARD_BLAMED && rank <= n; rank++) {
        int32_t best = -1;
        for (uint32_t i = 0; i < n; i++)
            if ((int32_t)i != before && (best < 0 || rest[i] > rest[best])) best = (int32_t)i;
        if (best < 0) break;
        const float high = d->seen * m->explained_high[best];
        if (rest[best] > gruard_at_least(GRUARD_SHARED * most, high))
            blamed[count++] = (int16_t)best;
        before = best;
    }
}

void gruard_tell_diagnosis(gruard_detector *d, gruard_record *record) {
    const float machine = d->chances[GRUARD_MACHINE];
    uint32_t best = 0;
    for (uint32_t k = 1; k < SENSOR_KINDS; k++)
        if (d->chances[k] > d->chances[best]) best = k;
    record->sensor = machine < 0.5f;
    record->kind = (int8_t)(record->sensor ? best : GRUARD_MACHINE);
    record->probability = d->chances[record->kind];
    blame(d, record->blamed);
}
