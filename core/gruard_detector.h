/* The structs behind gruard.h, so that they can be allocated without a heap:
 *
 *     static gruard_model model;
 *     static gruard_detector detector;
 *
 * Include this where they are allocated, and gruard.h everywhere else. The fields are private: they
 * change from version to version, and only the core may write them.
 */
#ifndef GRUARD_DETECTOR_H
#define GRUARD_DETECTOR_H

#include "gruard.h"

/* A blob contains both integers and floats. */
#if defined(__GNUC__)
#define GRUARD_ALIAS __attribute__((may_alias))
#else
#define GRUARD_ALIAS
#endif
typedef float GRUARD_ALIAS gruard_float;
typedef uint32_t GRUARD_ALIAS gruard_word;
typedef int32_t GRUARD_ALIAS gruard_integer;

#define GRUARD_MOST_LAYERS 16
#define GRUARD_PARTS 6          /* of the score */
#define GRUARD_MOST_MEMORIES 4

struct gruard_operator;

/* A checked blob and pointers to its parts. Vectors are [channels] unless stated otherwise; names
 * and formulas are those of edge_runtime. */
struct gruard_model {
    uint32_t channels, order, layers, operators, arena, layout;
    uint32_t has_cross, gated, has_diagnosis, has_rules, has_own, horizon, memories;
    uint32_t depth;                             /* past readings that the forecasts need */
    uint32_t alarm_m, alarm_n, clear_after;
    int32_t closed_limit, lost_limit, contradiction_limit, free_run_limit, resync_channel;
    int32_t resync_all, warmup, frozen_limit, agree, bridge, saturated_most;
    uint32_t window, hour;
    uint32_t units[GRUARD_MOST_LAYERS], states; /* width of each layer, and their sum */
    const uint8_t *hash;                        /* first 6 bytes of the model's SHA-256 */
    float threshold, clear;                     /* of the model's score */
    float fallback_threshold, fallback_clear, smoothing, slack;
    const gruard_float *center, *scale, *low, *high, *max_step, *stuck_after;
    const gruard_float *watched, *gated_channels;
    /* Operating modes, if any: indices and settings of the channels that tell them apart. */
    uint32_t modes, telling;
    const gruard_word *teller;            /* [telling] */
    const gruard_float *setting, *reach;  /* [modes][telling] */
    const gruard_float *mode_center, *mode_scale; /* [modes][channels] */
    const gruard_float *highway;          /* [order][channels] */
    const gruard_float *cross;            /* [order * channels][channels], by columns */
    const gruard_float *innovation_scale;
    const gruard_float *own;              /* [order][channels], if there is one */
    const gruard_float *ahead;            /* as cross, with a horizon */
    const gruard_float *weights;          /* [GRUARD_PARTS] */
    const gruard_float *attack, *decay;   /* [memories] */
    const gruard_float *ceiling, *part_mean, *part_std;     /* [memories][GRUARD_PARTS] */
    const gruard_float *error_scale, *absent;               /* [3][channels] */
    const gruard_float *channel_mean;     /* [3][channels] */
    const gruard_float *typical;          /* [3] */
    const gruard_float *distance_root, *level_root;         /* [channels][channels], by columns */
    uint32_t change_after, follows;
    float baseline_rate;
    const gruard_float *follow;
    const gruard_float *log_table;        /* [257] */
    const gruard_float *softplus;         /* [256], with a gate */
    const gruard_float *limits;           /* [6][channels], the fallback's views */
    const gruard_float *cusum_ceiling;
    const gruard_float *state_low, *state_high;             /* [layers] */
    /* The diagnosis; not set without one. */
    const gruard_float *view_smoothing;   /* [2] */
    const gruard_float *view_center;      /* [3][channels] */
    const gruard_float *precision;        /* [3 * channels][3 * channels], by columns */
    const gruard_float *block;            /* [3][3][channels] */
    const gruard_float *deviation, *explained_mean, *explained_high, *move_mean, *jump_mean;
    const gruard_float *persistence, *longest_repeat, *blameable;
    const gruard_float *feature_center, *feature_scale, *machine, *kinds;
    float distance_mean;
    /* The int8 graph; place in the arena and scale of each input and output. */
    const gruard_word *inputs, *outputs;
    const struct gruard_operator *program;
    const gruard_integer *integers;       /* biases */
    const int8_t *bytes;           /* weights, tables, constants */
    uint32_t integer_count, byte_count;
};

/* Number of smoothed parts of the score: [memories][GRUARD_PARTS]. */
static inline uint32_t gruard_heights(const gruard_model *model) {
    return model->memories * GRUARD_PARTS;
}

/* Counters of the tiers. */
typedef struct {
    uint8_t phase, outage, blind, distrusted, resync_count, reset_count, return_count;
    int32_t left, gap, lost, warmup, frozen, agreed;
    uint64_t index, resyncs[3], resets[1], returns[3];
    float *closed, *contradicted, *forced; /* [channels] */
} gruard_tiers;

/* The last scores as bits (1: above the threshold), the newest lowest. */
typedef struct {
    uint32_t above;
    uint32_t calm;
    uint8_t active;
} gruard_alarm;

#ifdef GRUARD_HOST
/* A float32 graph that the host runs instead of the blob's, to compare both.
 * inputs: [8][channels], then the states, as the graph was fed in the last step. outputs: gate,
 * doubt and correction, [channels] each, then update and candidate of each layer. */
typedef struct gruard_graph {
    float *inputs;
    const float *outputs;
    void (*run)(struct gruard_graph *graph);
    int settling;                    /* the forecast of the last step was not used */
} gruard_graph;
#endif

/* Everything kept from sample to sample, and the results of the last step. The vectors lie in the
 * caller's memory. */
struct gruard_detector {
    const gruard_model *model;
    float threshold, clear;
    uint8_t started;                 /* there is a recurrent state */
    gruard_tiers tiers;
    gruard_alarm alarm, fallback_alarm;
    float *last, *since, *same;      /* validity */
    float *history;                  /* [depth][channels], trusted readings, newest first */
    float *hidden;                   /* [states] */
    float *gate, *correction, *value, *mask;
    float parts[GRUARD_MOST_MEMORIES * GRUARD_PARTS]; /* [memories][GRUARD_PARTS] */
    float *terms;                    /* [3][channels] */
    /* The lasting change, if there is one. */
    uint8_t changed;
    uint32_t changes;                /* reported so far */
    uint32_t steady, home;
    float baselines[GRUARD_MOST_MEMORIES * GRUARD_PARTS];
    float recorded[GRUARD_MOST_MEMORIES * GRUARD_PARTS];
    float *centre, *standing;
    float *pulled;                   /* [3][channels] */
    uint8_t views_started;
    int32_t silent;                  /* samples in a row without any reading */
    float *view_level, *view_last, *view_up, *view_down, *view_same, *view_missing, *view_centre;
    /* Of the present step. */
    uint8_t measured;                /* 0 where no watched channel had a reading in a known mode */
    uint8_t unknown_mode;
    const gruard_float *center, *scale; /* of the mode, or of all modes together */
    uint8_t fallback_alarmed;
    float *usable;                   /* validity mask */
    float *absolute, *reading;       /* standardised; less the centre */
    float *forecast, *own, *ahead, *used, *doubt;
    float score, fallback_score;
    float here;                      /* the score for the alarm */
    float *shares;                   /* channels' shares of the fallback's score, kept in a gap */
    float *scratch;                  /* [3][channels] or, with a diagnosis, [5][channels] */
    int8_t *arena;
    /* The diagnosis. */
    float seen, age, distance;
    float chances[GRUARD_KINDS];
    uint32_t followed;
    float *x, *averages, *fault, *repeats, *known, *sums, *peaks;
    float *weighted, *reconstruction, *explained, *own_fault, *other_fault, *other_explained;
#ifdef GRUARD_HOST
    gruard_graph *graph;             /* NULL: the blob's own */
#endif
};

#endif
