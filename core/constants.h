/* Numbers that Python has, too. Each section names the Python module; GRUARD_X is its X or _X, or
 * the name in the comment. tests/edge_runtime/native/test_shared_constants.py compares them all.
 */
#ifndef GRUARD_CONSTANTS_H
#define GRUARD_CONSTANTS_H

/* edge_runtime.numerics */
#define GRUARD_LOG_TABLE_SIZE 256
#define GRUARD_MANTISSA_BITS 23
#define GRUARD_INDEX_SHIFT 15
#define GRUARD_LN2 0.69314718055994530942f

/* edge_runtime.detector.inputs */
#define GRUARD_BEYOND_BELIEF 1e30f

/* edge_runtime.detector.inputs */
#define GRUARD_VALUE_CLIP 100.0f

/* edge_runtime.detector.linear */
#define GRUARD_FORECAST_CLIP 8.0f

/* edge_runtime.detector.cell */
#define GRUARD_INNOVATION_CLIP 4.0f
#define GRUARD_EVIDENCE_CLIP 8.0f
#define GRUARD_GRAPH_FORECAST_CLIP 3.0f
#define GRUARD_GRAPH_INNOVATION_CLIP 2.0f
#define GRUARD_INPUT_STEP 0.5f

/* edge_runtime.detector.tiers */
#define GRUARD_CLOSED_BELOW 0.5f
#define GRUARD_TINY_INNOVATION 0.5f
#define GRUARD_HUGE_INNOVATION 8.0f
#define GRUARD_RESYNCS_BEFORE_RESET 2
#define GRUARD_RETURNS_PER_HOUR 3

/* edge_runtime.detector.score */
#define GRUARD_SCORE_CLIP 50.0f

/* edge_runtime.detector.change */
#define GRUARD_STANDING_RATE 0.1f
#define GRUARD_BASELINE_CLIP 6.0f
#define GRUARD_ALARMED_SHARE 0.2f
#define GRUARD_FOLLOW_CLIP 3.0f

/* edge_runtime.detector.fallback */
#define GRUARD_MOST_SILENT (1 << 24)

/* edge_runtime.symptoms */
#define GRUARD_DIAGNOSIS_VIEWS 3      /* VIEWS */
#define GRUARD_DIAGNOSED_CHANNELS 32  /* MOST_CHANNELS */

/* edge_runtime.symptoms */
#define GRUARD_READING_CLIP 16.0f
#define GRUARD_KEEP_CALM (15.0f / 16.0f)
#define GRUARD_KEEP_ALARM (127.0f / 128.0f)
#define GRUARD_MISSING_WORTH 100.0f
#define GRUARD_NOTICED 0.5f
#define GRUARD_CLEAR_FAULT 4.0f
#define GRUARD_SMALL_SHARE 0.0625f
#define GRUARD_DWARFED 16.0f
#define GRUARD_MOVE_GAIN 4.0f

/* edge_runtime.diagnosis */
#define GRUARD_MACHINE_WEIGHTS 9
#define GRUARD_KIND_WEIGHTS 41
#define GRUARD_FEATURE_CLIP 4.0f
#define GRUARD_LONGEST_MEAN 64
#define GRUARD_LARGEST 1e30f
#define GRUARD_TENTH 0.1f
#define GRUARD_FEW 1.5f
#define GRUARD_SHARED 0.25f
#define GRUARD_TINY 1e-3f
#define GRUARD_LOGIT_CLIP 40.0f
#define GRUARD_HALVINGS 8

/* edge_runtime.native.multiplier */
#define GRUARD_ADD_SHIFT 20  /* LEFT_SHIFT */
#define GRUARD_ADD_GROUP 16  /* VECTOR */

/* edge_runtime.native.linear */
#define GRUARD_LINEAR_SHIFT 21
#define GRUARD_LINEAR_LIMIT 0x7FE00000

/* edge_runtime.native.layout */
#define GRUARD_LANE_OUTPUTS 16  /* LANES */
#define GRUARD_LANE_INPUTS 4    /* GROUP */

/* edge_runtime.native.program */
#define GRUARD_ABSENT 0xFFFFFFFFu

/* edge_runtime.native.blob */
#define GRUARD_MAGIC 0x42755247
#define GRUARD_VERSION 6
#define GRUARD_MOST_WINDOW 32
#define GRUARD_MOST_COUNT (1 << 24)
#define GRUARD_MOST_ORDER 64
#define GRUARD_MOST_OPERATORS 1024

/* edge_runtime.bundle.manifest_rules */
#define GRUARD_LONGEST_HORIZON 64
#define GRUARD_MOST_MODES 16

/* edge_runtime.bundle.graph_rules */
#define GRUARD_WIDEST 8192

/* Words of a blob's header, up to the widths of the layers; the checksum covers what follows it.
 * From the channels on they are edge_runtime.native.blob.COUNTS. */
enum {
    GRUARD_H_MAGIC, GRUARD_H_VERSION, GRUARD_H_SIZE, GRUARD_H_CRC,
    GRUARD_H_CHANNELS, GRUARD_H_ORDER, GRUARD_H_LAYERS, GRUARD_H_OPERATORS, GRUARD_H_ARENA,
    GRUARD_H_CROSS, GRUARD_H_GATED, GRUARD_H_DIAGNOSIS, GRUARD_H_RULES,
    GRUARD_H_ALARM_M, GRUARD_H_ALARM_N, GRUARD_H_CLEAR_AFTER,
    GRUARD_H_CLOSED, GRUARD_H_LOST, GRUARD_H_CONTRADICTION, GRUARD_H_FREE_RUN,
    GRUARD_H_RESYNC_CHANNEL, GRUARD_H_RESYNC_ALL, GRUARD_H_WARMUP, GRUARD_H_FROZEN, GRUARD_H_AGREE,
    GRUARD_H_BRIDGE, GRUARD_H_CHANGE, GRUARD_H_SATURATED, GRUARD_H_WINDOW, GRUARD_H_HOUR,
    GRUARD_H_INTEGERS, GRUARD_H_BYTES, GRUARD_H_LAYOUT, GRUARD_H_OWN, GRUARD_H_HORIZON,
    GRUARD_H_MEMORIES, GRUARD_H_MODES, GRUARD_H_TELLING,
    GRUARD_H_HASH, GRUARD_H_HASH_2, GRUARD_H_WORDS
};

#endif
