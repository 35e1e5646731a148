/* Declarations shared by the files of the core; not for users of the core. */
#ifndef GRUARD_PARTS_H
#define GRUARD_PARTS_H

#include "exact.h"

#include "constants.h"
#include "gruard_detector.h"

/* Ends of the parts of a step, for measurements. */
enum { GRUARD_READ, GRUARD_FORECASTED, GRUARD_FED, GRUARD_RUN, GRUARD_BLENDED, GRUARD_SCORED,
       GRUARD_DIAGNOSED, GRUARD_TOLD };
#ifdef GRUARD_COST
void cost_mark(uint32_t part);
#define GRUARD_MARK(part) cost_mark(part)
#else
#define GRUARD_MARK(part) ((void)0)
#endif

/* Inputs of the graph in the order of the blob; the states follow, one per layer. A test compares
 * these enums with edge_runtime. */
enum {
    GRUARD_INNOVATION, GRUARD_FORECAST, GRUARD_EVIDENCE, GRUARD_MAGNITUDE, GRUARD_DIFFERENCE,
    GRUARD_MASK, GRUARD_GUARDED, GRUARD_GATE, GRUARD_STATE
};
/* Outputs, then an update and a candidate for each layer. */
enum { GRUARD_LOGIT, GRUARD_GATE_NEXT, GRUARD_CORRECTION, GRUARD_UPDATE };

enum { GRUARD_ROWS, GRUARD_LANES, GRUARD_PAIRS, GRUARD_QUADS, GRUARD_SIGNED_LANES };

/* One input or output of the graph. */
typedef struct GRUARD_ALIAS gruard_end {
    uint32_t place;      /* in the arena, GRUARD_ABSENT where the graph has none */
    uint32_t count;
    float scale, zero_point;
} gruard_end;

/* Operators of the graph. */
enum {
    GRUARD_FULLY_CONNECTED, GRUARD_ADD, GRUARD_SUB, GRUARD_MUL, GRUARD_TABLE, GRUARD_COPY,
    GRUARD_CONSTANT, GRUARD_LINEAR, GRUARD_LINEAR_TABLE, GRUARD_OPERATORS
};

/* One operator: int8 values at `left` (and `right`) give `count` values at `out`, all in the arena.
 * constant: offset of its weights, its table or its values in the blob's bytes. */
typedef struct GRUARD_ALIAS gruard_operator {
    uint32_t kind, count, out, left, right;
    uint32_t inputs;     /* of each output of FULLY_CONNECTED */
    uint32_t constant, bias;
    int32_t left_zero, right_zero, out_zero;
    int32_t left_multiplier, right_multiplier, multiplier;
    int32_t left_shift, right_shift, shift; /* negative: to the right */
    int32_t lowest;      /* of the result, a fused RELU's zero */
} gruard_operator;

/* A host runs these loops at the width of its own vector unit. */
#if defined(GRUARD_HOST) && defined(__x86_64__) && defined(__gnu_linux__) && \
    !defined(__clang__) && __GNUC__ >= 12
#define GRUARD_WIDE __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define GRUARD_WIDE
#endif

/* The few loops of a step that are worth their size where the rest is compiled for size. */
#if defined(__OPTIMIZE_SIZE__) && !defined(__clang__)
#define GRUARD_HOT __attribute__((optimize("O2")))
#else
#define GRUARD_HOT
#endif

/* result [rows] of a matrix that lies column after column, times vector [columns]. */
void gruard_matvec(const gruard_float *matrix, uint32_t rows, uint32_t columns,
                   const float *vector, float *result);

void gruard_run_graph(const gruard_model *model, int8_t *arena);
/* Each kernel defines these: the layout of its weights (edge_runtime.native.layout), their bytes
 * for a FULLY_CONNECTED (UINT32_MAX where it cannot compute that one), how many biases lie apart
 * from them, and the arithmetic. */
extern const uint32_t gruard_layout;
uint32_t gruard_weight_bytes(const gruard_operator *o);
uint32_t gruard_biases(uint32_t outputs);
void gruard_fully_connected(const int8_t *input, const int8_t *weights, const gruard_integer *bias,
                            int8_t *output, const gruard_operator *o);
/* sign: -1 subtracts. */
void gruard_add(const gruard_operator *o, int8_t *arena, int32_t sign);
/* Sums in their linear form, which the packer has proven equal: for each value the code
 * clip((left * left_multiplier + right * right_multiplier + multiplier) >> GRUARD_LINEAR_SHIFT), or
 * its result in `table` unless that is NULL. The reader has checked that no sum reaches
 * GRUARD_LINEAR_LIMIT and that `out` shares no byte with `left` or `right`. */
void gruard_linear(const gruard_operator *o, int8_t *arena, const int8_t *table);
void gruard_multiply(const gruard_operator *o, int8_t *arena);
/* table: 256 results, beginning with code -128. */
void gruard_look_up(const int8_t *codes, int8_t *out, uint32_t count, const int8_t *table);

void gruard_check_validity(gruard_detector *d, const float *values);
/* With the centre and scale of the present step. */
void gruard_standardise(const gruard_detector *d, const float *values, const float *mask,
                        float *out);
/* Set centre and scale of the mode of `values`; after gruard_check_validity. In an unknown mode no
 * watched reading is usable. */
void gruard_find_mode(gruard_detector *d, const float *values);
int gruard_present(float value);

void gruard_update_alarm(gruard_alarm *alarm, float score, float threshold, float clear,
                         const gruard_model *m);

/* Views of the fallback, in the order of their limits. */
enum { GRUARD_VIEW_RANGE, GRUARD_VIEW_LEVEL, GRUARD_VIEW_CHANGE, GRUARD_VIEW_CUSUM,
       GRUARD_VIEW_SAME, GRUARD_VIEW_MISSING, GRUARD_VIEWS };
/* The fallback's score and alarm of the present step; after gruard_check_validity. */
void gruard_fallback(gruard_detector *d);
void gruard_blame_fallback(const gruard_detector *d, int16_t *blamed);

enum { GRUARD_PART_RESIDUAL, GRUARD_PART_OWN, GRUARD_PART_DISTANCE, GRUARD_PART_LEVEL,
       GRUARD_PART_AHEAD, GRUARD_PART_GATE };
/* The smoothed part at `place`, standardised and times its weight. */
float gruard_height(const gruard_model *m, const float *parts, uint32_t place);
void gruard_start_score(gruard_detector *d, int keep_level);
/* The model's score of the present step. */
void gruard_score(gruard_detector *d);
void gruard_blame_score(gruard_detector *d, int16_t *blamed);
/* Indices of the largest `shares`, at most three, each above 0 (or `from_zero`) and at least half
 * the largest; -1 where there is none. */
void gruard_largest(const float *shares, uint32_t count, int from_zero, int16_t *chosen);

/* Make the readings relative to the centre. */
void gruard_take_stand(gruard_detector *d);
/* Update the lasting change after a measured row and its alarm. */
void gruard_change(gruard_detector *d, int settling);

void gruard_start_tiers(gruard_tiers *t, const gruard_model *m);
void gruard_restart_tiers(gruard_tiers *t, const gruard_model *m);
int gruard_tier(const gruard_tiers *t, const gruard_model *m);
int gruard_held_open(const gruard_tiers *t, uint32_t channel);
/* Of the present row, before gruard_observe: whether it is the first after a gap, and whether its
 * forecast is not to be used. */
int gruard_ends_gap(const gruard_detector *d, const float *mask);
int gruard_settling(const gruard_detector *d);
/* 1 if the recurrent state must be reset now. moved: the state; input_moved: the readings. */
int gruard_observe(gruard_detector *d, int moved, int input_moved, int32_t saturated);
void gruard_agree(gruard_tiers *t, int same_verdict, const gruard_model *m);
void gruard_distrust_tiers(gruard_tiers *t, const gruard_model *m);
enum { GRUARD_PHASE_GATE, GRUARD_PHASE_FREE_RUN, GRUARD_PHASE_RESYNC };

/* Rows of the diagnosis' decaying sums and peaks, and its features. */
enum { GRUARD_SUMS = 16, GRUARD_PEAKS = 4, GRUARD_FEATURES = 25 };
void gruard_start_diagnosis(gruard_detector *d);
void gruard_advance_diagnosis(gruard_detector *d, const float *values);
void gruard_tell_diagnosis(gruard_detector *d, gruard_record *record);

#endif
