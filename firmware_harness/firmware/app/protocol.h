/* The messages over the UART; link.c has the frames that carry them. All little-endian.
 *
 * A message is a kind byte, a 32-bit sequence number and a body. The sequence number is that of the
 * sample: the board asks for samples in order and answers each once.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include <stdint.h>

/* From the host. */
enum {
    ASK_STATUS = 0x01,  /* no body */
    ASK_SAMPLE = 0x02,  /* float32 [channels], NaN where missing */
    /* Only in test builds. */
    ASK_INJECT = 0x10,  /* an injection, 32 bits: done at the end of the current turn */
    ASK_STORE = 0x11,   /* 32 bits of place and up to 256 bytes: of a blob to be tried */
    ASK_TRY = 0x12      /* 32 bits: how long the blob is; answered by TELL_TRIED */
};

/* From the board. */
enum {
    TELL_STATUS = 0x81, /* a status; unasked after a start */
    TELL_RECORD = 0x82, /* a gruard_record, its masks shortened to what the channels need */
    TELL_GAP = 0x83,    /* no sample came in time */
    TELL_ERROR = 0x84,  /* 32 bits each: an error and how many there were; seq: the one expected */
    TELL_TRIED = 0x92   /* 32 bits: result of gruard_open() for the stored blob */
};

/* Errors of frames. */
enum {
    ERROR_TOO_LONG = 1, ERROR_STUFFING = 2, ERROR_CHECKSUM = 3, ERROR_KIND = 4, ERROR_LENGTH = 5,
    ERROR_SEQUENCE = 6, ERROR_NO_DETECTOR = 7
};

/* What answers. */
enum { SERVICE_MODEL = 0, SERVICE_DISTRUSTED = 1, SERVICE_SPARE = 2, SERVICE_NONE = 3 };

/* Why the board was reset. */
enum {
    CAUSE_POWER = 0,    /* power-on */
    CAUSE_HANG = 1,     /* the watchdog expired */
    CAUSE_FAULT = 2,    /* HardFault */
    CAUSE_STACK = 3,    /* stack overflow */
    CAUSE_WEIGHTS = 4,  /* the bundle changed in memory */
    CAUSE_SEQUENCE = 5, /* a turn ended without its step */
    CAUSE_SILENT = 6,   /* no cause was noted: the reset pin, or a watchdog without interrupt */
    CAUSE_STATE = 7,    /* the two copies of the detector differ after a step */
    CAUSE_CODE = 8      /* the program changed in memory */
};

/* Faults of test builds. */
enum {
    INJECT_HANG = 1, INJECT_SLEEP = 2, INJECT_FAULT = 3, INJECT_STACK = 4, INJECT_WEIGHTS = 5,
    INJECT_STATE = 6, INJECT_SKIP = 7
};

typedef struct {
    uint32_t service;       /* what answers */
    uint32_t refusal;       /* gruard_error of the bundle, or of the spare if neither can be used */
    uint32_t cause;         /* of the last reset */
    uint32_t pc, lr;        /* at the reset */
    uint32_t fault_status;  /* of the processor, of a HardFault */
    uint32_t stage;         /* of the turn that was interrupted */
    uint32_t resets;        /* since power-on */
    uint32_t next;          /* sample that is asked for */
    uint32_t channels;
    uint32_t selftest;      /* 0 running, 1 passed, 2 failed */
    uint32_t malformed;     /* frames, since the start */
    uint32_t walks;         /* of bundle and program by their checksums, since the start */
    uint32_t ticks_to_reset, ticks_to_word; /* from the injection, from the reset to this status */
} status;

#endif
