/* Frames over the UART. */
#ifndef LINK_H
#define LINK_H

#include <stddef.h>
#include <stdint.h>

enum { LINK_HEAD = 5, LINK_MOST_BODY = 1024, LINK_CHECKSUM = 4 };

typedef struct {
    uint8_t kind;
    uint32_t sequence;
    size_t size; /* of the body */
    uint8_t *body;
} message;

/* Read at most one byte, so that a flood of bytes cannot block the loop. 1: a message is in `found`,
 * valid until the next call. 0: no message yet. Below 0: the negative error (ERROR_…) of a dropped
 * frame. */
int link_receive(message *found);

void link_send(uint8_t kind, uint32_t sequence, const void *body, size_t size);

#endif
