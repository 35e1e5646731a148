/* The reader of packed bundles, which trusts nothing in them.
 *
 * A blob is a row of 32-bit little-endian words: a header, then parts whose lengths follow from it,
 * in the order of `read_parts`. edge_runtime.native.blob writes it.
 */
#include <string.h>

#include "parts.h"

/* Limits of the core. */
enum { MOST_STATES = 16384, MOST_ARENA = 1 << 20, MOST_BYTES = 1 << 26 };

/* The rest of the blob, in words. */
typedef struct {
    const gruard_word *next;
    size_t left;
    int short_of;
} cursor;

static const void *take(cursor *c, size_t words) {
    if (words > c->left) {
        c->short_of = 1;
        return NULL;
    }
    const void *part = c->next;
    c->next += words;
    c->left -= words;
    return part;
}

static float take_number(cursor *c) {
    const gruard_float *number = take(c, 1);
    return number ? *number : 0.0f;
}

static int within(uint32_t value, uint32_t low, uint32_t high) {
    return value >= low && value <= high;
}

static gruard_error read_counts(gruard_model *m, const gruard_word *header) {
    m->channels = header[GRUARD_H_CHANNELS];
    m->order = header[GRUARD_H_ORDER];
    m->layers = header[GRUARD_H_LAYERS];
    m->operators = header[GRUARD_H_OPERATORS];
    m->arena = header[GRUARD_H_ARENA];
    m->has_cross = header[GRUARD_H_CROSS];
    m->gated = header[GRUARD_H_GATED];
    m->has_diagnosis = header[GRUARD_H_DIAGNOSIS];
    m->has_rules = header[GRUARD_H_RULES];
    m->alarm_m = header[GRUARD_H_ALARM_M];
    m->alarm_n = header[GRUARD_H_ALARM_N];
    m->clear_after = header[GRUARD_H_CLEAR_AFTER];
    m->integer_count = header[GRUARD_H_INTEGERS];
    m->byte_count = header[GRUARD_H_BYTES];
    m->window = header[GRUARD_H_WINDOW];
    m->hour = header[GRUARD_H_HOUR];
    m->layout = header[GRUARD_H_LAYOUT];
    m->has_own = header[GRUARD_H_OWN];
    m->horizon = header[GRUARD_H_HORIZON];
    m->memories = header[GRUARD_H_MEMORIES];
    m->modes = header[GRUARD_H_MODES];
    m->telling = header[GRUARD_H_TELLING];
    m->hash = (const uint8_t *)(header + GRUARD_H_HASH);
    const uint32_t most = m->has_diagnosis ? GRUARD_DIAGNOSED_CHANNELS : GRUARD_MOST_CHANNELS;
    if (!within(m->channels, 1, most) || !within(m->order, 1, GRUARD_MOST_ORDER) ||
        m->layers > GRUARD_MOST_LAYERS || m->operators > GRUARD_MOST_OPERATORS ||
        m->arena > MOST_ARENA || m->has_cross > 1 || m->gated > 1 || m->has_diagnosis > 1 ||
        m->has_rules > 1 || m->has_own > 1 || m->horizon > GRUARD_LONGEST_HORIZON ||
        m->modes > GRUARD_MOST_MODES || m->telling > m->channels ||
        !within(m->memories, 1, GRUARD_MOST_MEMORIES) ||
        !within(m->alarm_n, 1, GRUARD_MOST_WINDOW) || !within(m->alarm_m, 1, m->alarm_n) ||
        !within(m->clear_after, 1, GRUARD_MOST_COUNT) || m->integer_count > MOST_BYTES / 4 ||
        m->byte_count > MOST_BYTES)
        return GRUARD_IMPOSSIBLE;
    for (uint32_t i = GRUARD_H_CLOSED; i <= GRUARD_H_SATURATED; i++)
        if (header[i] > GRUARD_MOST_COUNT) return GRUARD_IMPOSSIBLE;
    m->closed_limit = (int32_t)header[GRUARD_H_CLOSED];
    m->lost_limit = (int32_t)header[GRUARD_H_LOST];
    m->contradiction_limit = (int32_t)header[GRUARD_H_CONTRADICTION];
    m->free_run_limit = (int32_t)header[GRUARD_H_FREE_RUN];
    m->resync_channel = (int32_t)header[GRUARD_H_RESYNC_CHANNEL];
    m->resync_all = (int32_t)header[GRUARD_H_RESYNC_ALL];
    m->warmup = (int32_t)header[GRUARD_H_WARMUP];
    m->frozen_limit = (int32_t)header[GRUARD_H_FROZEN];
    m->agree = (int32_t)header[GRUARD_H_AGREE];
    m->bridge = (int32_t)header[GRUARD_H_BRIDGE];
    m->change_after = header[GRUARD_H_CHANGE];
    m->saturated_most = (int32_t)header[GRUARD_H_SATURATED];
    m->depth = m->order + (m->horizon ? m->horizon - 1 : 0);
    /* A linear model has no weights. */
    return m->operators && m->layout != gruard_layout ? GRUARD_OTHER_LAYOUT : GRUARD_OK;
}

static void read_score(gruard_model *m, cursor *c) {
    const size_t n = m->channels, all = gruard_heights(m);
    m->weights = take(c, GRUARD_PARTS);
    m->attack = take(c, m->memories);
    m->decay = take(c, m->memories);
    m->ceiling = take(c, all);
    m->part_mean = take(c, all);
    m->part_std = take(c, all);
    m->error_scale = take(c, 3 * n);
    m->absent = take(c, 3 * n);
    m->channel_mean = take(c, 3 * n);
    m->typical = take(c, 3);
    m->distance_root = take(c, n * n);
    m->level_root = take(c, n * n);
    m->baseline_rate = take_number(c);
    m->follow = take(c, n);
    m->log_table = take(c, GRUARD_LOG_TABLE_SIZE + 1);
    m->softplus = m->gated ? take(c, 256) : NULL;
}

static void read_diagnosis(gruard_model *m, cursor *c) {
    const size_t n = m->channels;
    m->view_smoothing = take(c, 2);
    m->view_center = take(c, 3 * n);
    m->precision = take(c, 9 * n * n);
    m->block = take(c, 9 * n);
    m->deviation = take(c, n);
    m->explained_mean = take(c, n);
    m->explained_high = take(c, n);
    m->move_mean = take(c, n);
    m->jump_mean = take(c, n);
    m->persistence = take(c, n);
    m->longest_repeat = take(c, n);
    m->blameable = take(c, n);
    m->feature_center = take(c, GRUARD_FEATURES);
    m->feature_scale = take(c, GRUARD_FEATURES);
    m->machine = take(c, GRUARD_MACHINE_WEIGHTS);
    m->kinds = take(c, GRUARD_MACHINE * GRUARD_KIND_WEIGHTS);
    m->distance_mean = take_number(c);
}

static void read_parts(gruard_model *m, cursor *c) {
    const size_t n = m->channels;
    m->threshold = take_number(c);
    m->clear = take_number(c);
    m->fallback_threshold = take_number(c);
    m->fallback_clear = take_number(c);
    m->smoothing = take_number(c);
    m->slack = take_number(c);
    m->center = take(c, n);
    m->scale = take(c, n);
    m->low = take(c, n);
    m->high = take(c, n);
    m->max_step = take(c, n);
    m->stuck_after = take(c, n);
    m->watched = take(c, n);
    m->gated_channels = take(c, n);
    m->teller = take(c, m->telling);
    m->setting = take(c, m->modes * m->telling);
    m->reach = take(c, m->modes * m->telling);
    m->mode_center = take(c, m->modes * n);
    m->mode_scale = take(c, m->modes * n);
    m->highway = take(c, m->order * n);
    m->cross = m->has_cross ? take(c, m->order * n * n) : NULL;
    m->innovation_scale = take(c, n);
    m->own = m->has_own ? take(c, m->order * n) : NULL;
    m->ahead = m->horizon ? take(c, m->order * n * n) : NULL;
    read_score(m, c);
    m->limits = take(c, GRUARD_VIEWS * n);
    m->cusum_ceiling = take(c, n);
    m->state_low = take(c, m->layers);
    m->state_high = take(c, m->layers);
    if (m->has_diagnosis) read_diagnosis(m, c);
    m->inputs = take(c, 4 * (GRUARD_STATE + m->layers));
    m->outputs = take(c, 4 * (GRUARD_UPDATE + 2 * m->layers));
    m->program = take(c, m->operators * (sizeof(gruard_operator) / 4));
    m->integers = take(c, m->integer_count);
    m->bytes = take(c, (m->byte_count + 3) / 4);
}

/* Whether [start, start + length) lies in [0, size); all below 2^31. */
static int inside(uint32_t start, uint32_t length, uint32_t size) {
    return start <= size && length <= size - start;
}

/* Whether codes and numbers can be converted; also false for NaN. */
static int end_has_scale(const gruard_end *end) {
    return end->scale > 0 && end->zero_point >= -128 && end->zero_point <= 127 &&
           end->zero_point == (float)(int32_t)end->zero_point;
}

static int end_is_sound(const gruard_model *m, const gruard_end *end, int needed, uint32_t count) {
    if (end->place == GRUARD_ABSENT) return !needed;
    return end->count == count && inside(end->place, count, m->arena) && end_has_scale(end);
}

static gruard_error check_ends(gruard_model *m) {
    const gruard_end *in = (const gruard_end *)m->inputs, *out = (const gruard_end *)m->outputs;
    const uint32_t n = m->channels;
    m->states = 0;
    for (uint32_t i = 0; i < GRUARD_STATE; i++)
        if (!end_is_sound(m, &in[i], 0, n)) return GRUARD_IMPOSSIBLE;
    if (!end_is_sound(m, &out[GRUARD_LOGIT], (int)m->gated, n) ||
        !end_is_sound(m, &out[GRUARD_GATE_NEXT], (int)m->gated, n) ||
        !end_is_sound(m, &out[GRUARD_CORRECTION], m->layers > 0, n))
        return GRUARD_IMPOSSIBLE;
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const uint32_t units = in[GRUARD_STATE + layer].count;
        if (!within(units, 1, GRUARD_WIDEST) || m->states + units > MOST_STATES ||
            !end_is_sound(m, &in[GRUARD_STATE + layer], 1, units) ||
            !end_is_sound(m, &out[GRUARD_UPDATE + 2 * layer], 1, units) ||
            !end_is_sound(m, &out[GRUARD_UPDATE + 2 * layer + 1], 1, units))
            return GRUARD_IMPOSSIBLE;
        m->units[layer] = units;
        m->states += units;
    }
    return GRUARD_OK;
}

static int shift_is_sound(int32_t shift) { return shift >= -31 && shift <= 30; }

static int addend_is_sound(int32_t shift) { return shift >= -GRUARD_ADD_SHIFT && shift <= 0; }

static int scaling_is_sound(const gruard_operator *o) {
    return o->multiplier >= 0 && shift_is_sound(o->shift) && o->left_multiplier >= 0 &&
           o->right_multiplier >= 0 && addend_is_sound(o->left_shift) &&
           addend_is_sound(o->right_shift);
}

static int zeros_are_sound(const gruard_operator *o) {
    return o->left_zero >= -128 && o->left_zero <= 127 && o->right_zero >= -128 &&
           o->right_zero <= 127 && o->out_zero >= -128 && o->out_zero <= 127 &&
           o->lowest >= -128 && o->lowest <= 127;
}

/* Whether result and operand share no byte; the loops over both rely on it (restrict). */
static int apart(uint32_t operand, uint32_t length, const gruard_operator *o) {
    return operand + length <= o->out || o->out + o->count <= operand;
}

/* Whether no sum of a linear form can overflow, whatever its codes. */
static int linear_is_sound(const gruard_operator *o) {
    const int64_t left = o->left_multiplier, right = o->right_multiplier, constant = o->multiplier;
    const int64_t most = 128 * ((left < 0 ? -left : left) + (right < 0 ? -right : right)) +
                         (constant < 0 ? -constant : constant);
    return most < GRUARD_LINEAR_LIMIT;
}

static int operands_are_sound(const gruard_model *m, const gruard_operator *o) {
    return inside(o->left, o->count, m->arena) && inside(o->right, o->count, m->arena) &&
           apart(o->left, o->count, o) && apart(o->right, o->count, o);
}

static int operator_is_sound(const gruard_model *m, const gruard_operator *o) {
    if (o->kind >= GRUARD_OPERATORS || !within(o->count, 1, GRUARD_WIDEST) ||
        !inside(o->out, o->count, m->arena))
        return 0;
    if (o->kind == GRUARD_LINEAR || o->kind == GRUARD_LINEAR_TABLE)
        return operands_are_sound(m, o) && linear_is_sound(o) &&
               (o->kind == GRUARD_LINEAR || inside(o->constant, 256, m->byte_count));
    if (!scaling_is_sound(o) || !zeros_are_sound(o)) return 0;
    switch (o->kind) {
    case GRUARD_FULLY_CONNECTED:
        return within(o->inputs, 1, GRUARD_WIDEST) && inside(o->left, o->inputs, m->arena) &&
               inside(o->constant, gruard_weight_bytes(o), m->byte_count) &&
               inside(o->bias, gruard_biases(o->count), m->integer_count) &&
               apart(o->left, o->inputs, o);
    case GRUARD_ADD: case GRUARD_SUB: case GRUARD_MUL:
        return operands_are_sound(m, o);
    case GRUARD_TABLE:
        return inside(o->left, o->count, m->arena) && inside(o->constant, 256, m->byte_count);
    case GRUARD_COPY:
        return inside(o->left, o->count, m->arena);
    default:
        return inside(o->constant, o->count, m->byte_count);
    }
}

gruard_error gruard_open(gruard_model *m, const void *blob, size_t size) {
    memset(m, 0, sizeof *m);
    if ((uintptr_t)blob % 4) return GRUARD_UNALIGNED;
    cursor c = {blob, size / 4, 0};
    const gruard_word *header = take(&c, GRUARD_H_WORDS);
    if (!header) return GRUARD_TRUNCATED;
    if (header[GRUARD_H_MAGIC] != GRUARD_MAGIC || header[GRUARD_H_VERSION] != GRUARD_VERSION)
        return GRUARD_FOREIGN;
    if (header[GRUARD_H_SIZE] != size || size % 4) return GRUARD_TRUNCATED;
    if (header[GRUARD_H_CRC] !=
        gruard_crc(0, header + GRUARD_H_CHANNELS, size - 4 * GRUARD_H_CHANNELS))
        return GRUARD_DAMAGED;
    gruard_error error = read_counts(m, header);
    if (error) return error;
    read_parts(m, &c);
    if (c.short_of || c.left) return GRUARD_TRUNCATED;
    for (uint32_t i = 0; i < m->channels; i++) m->follows |= m->follow[i] > 0;
    for (uint32_t t = 0; t < m->telling; t++)
        if (m->teller[t] >= m->channels) return GRUARD_IMPOSSIBLE;
    error = check_ends(m);
    for (uint32_t i = 0; !error && i < m->operators; i++)
        if (!operator_is_sound(m, &m->program[i])) error = GRUARD_IMPOSSIBLE;
    return error;
}
