/* gruard's core: a detector that runs a packed bundle, sample by sample, without heap or libc.
 *
 * Give it a packed bundle (a "blob": 4-byte aligned, little-endian, see blob.c) and memory for the
 * state; every record is then the record that gruard's Python runtime gives, bit for bit.
 *
 *     static gruard_model model;                     // gruard_detector.h has their sizes
 *     static gruard_detector detector;
 *     if (gruard_open(&model, blob, blob_size)) refuse();
 *     static float memory[...];                      // gruard_memory(&model) bytes
 *     if (gruard_start(&detector, &model, memory, sizeof memory)) refuse();
 *     for (;;) { read(values); gruard_step(&detector, values, &record); ... }
 *
 * Nothing is global, so several detectors may run side by side.
 */
#ifndef GRUARD_H
#define GRUARD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GRUARD_MOST_CHANNELS 256
#define GRUARD_BLAMED 3
#define GRUARD_WORDS (GRUARD_MOST_CHANNELS / 32)

/* Whether the machine is as recorded, has changed (reported), or changed and was accepted. */
enum { GRUARD_AS_RECORDED, GRUARD_HAS_CHANGED, GRUARD_ACCEPTED };

/* Reason for refusing a blob or its memory; 0 is success. */
typedef enum {
    GRUARD_OK = 0,
    GRUARD_UNALIGNED = 1,   /* blob or memory is not at a multiple of 4 bytes */
    GRUARD_FOREIGN = 2,     /* not a blob, or of another version */
    GRUARD_TRUNCATED = 3,   /* its length is not what its header or its parts need */
    GRUARD_DAMAGED = 4,     /* checksum */
    GRUARD_IMPOSSIBLE = 5,  /* a count, offset or operator that no bundle has */
    GRUARD_NO_MEMORY = 6,   /* less than gruard_memory() bytes for the state */
    GRUARD_OTHER_LAYOUT = 7 /* its weights are laid out for another kernel */
} gruard_error;

/* Flags of a record, the numbers of edge_runtime.record.Flag. */
enum {
    GRUARD_IMPUTED = 1, GRUARD_FREE_RUN = 2, GRUARD_RESYNC = 4, GRUARD_WARMUP = 8,
    GRUARD_RESET = 16, GRUARD_FALLBACK = 32, GRUARD_CHANGED = 2048,
    GRUARD_UNKNOWN_MODE = 4096,
    GRUARD_RESTARTED = 256 /* set by the firmware, never by the core */
};

/* Kinds of fault: edge_runtime.diagnosis.KINDS. */
enum {
    GRUARD_SPIKE, GRUARD_NOISE, GRUARD_STUCK, GRUARD_LEVEL, GRUARD_DRIFT, GRUARD_DECORRELATION,
    GRUARD_DROPOUT, GRUARD_MACHINE, GRUARD_KINDS
};

/* The answer for one sample. */
typedef struct {
    uint64_t index;                 /* of the sample, from 0 */
    float score;                    /* of the detector that answered: the fallback's in tier 3 */
    float probability;              /* of `kind`; 0 without one */
    uint16_t flags;
    uint8_t tier;                   /* 1 gate, 2 recurrent unit only, 3 statistical fallback */
    uint8_t valid;                  /* it comes from a healthy, settled model */
    uint8_t alarm;
    int8_t kind;                    /* of fault, GRUARD_SPIKE to GRUARD_MACHINE; -1: none known */
    uint8_t sensor;                 /* a sensor is at fault rather than the machine */
    uint8_t reserved;
    int16_t blamed[GRUARD_BLAMED];  /* channels behind the alarm, worst first; -1: none */
    uint32_t masked[GRUARD_WORDS];  /* a bit for each channel whose reading was unusable */
    uint32_t imputed[GRUARD_WORDS]; /* a bit for each channel that the forecast replaced */
} gruard_record;

/* A checked blob, and a detector over it. Their fields are private to the core.
 * To allocate one, include gruard_detector.h, which has their sizes. */
typedef struct gruard_model gruard_model;
typedef struct gruard_detector gruard_detector;

/* Check `size` bytes at `blob` and locate its parts. Never reads outside them, whatever they
 * contain. The blob must not move afterwards. */
gruard_error gruard_open(gruard_model *model, const void *blob, size_t size);

/* Bytes of memory that a detector of `model` needs, a multiple of 4. */
size_t gruard_memory(const gruard_model *model);

/* Start a detector in `size` bytes of `memory` (4-byte aligned). */
gruard_error gruard_start(gruard_detector *detector, const gruard_model *model, void *memory,
                          size_t size);

/* Write the record for raw readings [channels], NaN where missing, and advance the state. */
void gruard_step(gruard_detector *detector, const float *values, gruard_record *record);

/* The same by the fallback only, in tier 3: for a program without a trusted model, or one that
 * supervises the process with the model. */
void gruard_step_fallback(gruard_detector *detector, const float *values, gruard_record *record);

/* Forget the recurrent state; the records until it has settled are flagged. */
void gruard_reset(gruard_detector *detector);

/* Distrust the model: tier 3 answers until it has agreed with the fallback for long enough. */
void gruard_distrust(gruard_detector *detector);

/* Accept the machine's change as normal: GRUARD_CHANGED ends, and the score is relative to the new
 * centre. `yes` = 0 revokes that. No-op without a change. */
void gruard_accept(gruard_detector *detector, int yes);

/* Continue from the lasting change of another detector of the same model: its `changed`,
 * `changes`, `centre` [channels] and `baselines`. Call it before the first step. */
void gruard_resume(gruard_detector *detector, uint8_t changed, uint32_t changes,
                   const float *centre, const float *baselines);

/* Let the fallback judge readings relative to `centre` [channels], in standardised units. */
void gruard_stand_at(gruard_detector *detector, const float *centre);

/* Whether every number of the state is within the bounds that every step keeps. If not, memory has
 * failed. */
int gruard_state_is_possible(const gruard_detector *detector);

/* Replace the blob's threshold, and the level below which the alarm clears. */
void gruard_set_threshold(gruard_detector *detector, float threshold, float clear);

/* CRC-32 (IEEE 802.3) of `size` bytes that follow the bytes of `crc`; begin with 0. */
uint32_t gruard_crc(uint32_t crc, const void *data, size_t size);

#ifdef __cplusplus
}
#endif

#endif
