/* Frames over the UART: a message and its CRC-32, byte-stuffed (COBS) so that zero bytes occur only
 * at the end of a frame. After lost or damaged bytes, reception restarts at the next zero.
 */
#include "link.h"

#include <string.h>

#include "board.h"
#include "gruard.h"
#include "protocol.h"

enum { LONGEST = LINK_HEAD + LINK_MOST_BODY + LINK_CHECKSUM, STUFFED = LONGEST + LONGEST / 254 + 1,
       LONGEST_RUN = 254 };

static uint8_t incoming[STUFFED];
static size_t arrived;
static uint8_t overflowed;

/* Decode in place; the size of the result, or -1. */
static int32_t unstuff(uint8_t *bytes, size_t size) {
    size_t in = 0, out = 0;
    while (in < size) {
        const size_t run = bytes[in++] - 1u;
        if (run > size - in) return -1;
        memmove(bytes + out, bytes + in, run);
        in += run;
        out += run;
        if (run < LONGEST_RUN && in < size) bytes[out++] = 0;
    }
    return (int32_t)out;
}

static int read_frame(size_t stuffed, message *found) {
    const int32_t size = unstuff(incoming, stuffed);
    if (size < LINK_HEAD + LINK_CHECKSUM) return -ERROR_STUFFING;
    const size_t covered = (size_t)size - LINK_CHECKSUM;
    uint32_t checksum;
    memcpy(&checksum, incoming + covered, sizeof checksum);
    if (checksum != gruard_crc(0, incoming, covered)) return -ERROR_CHECKSUM;
    found->kind = incoming[0];
    memcpy(&found->sequence, incoming + 1, sizeof found->sequence);
    found->size = covered - LINK_HEAD;
    found->body = incoming + LINK_HEAD;
    return 1;
}

int link_receive(message *found) {
    uint8_t byte;
    if (!board_receive(&byte)) return 0;
    if (byte) {
        if (arrived < sizeof incoming) incoming[arrived++] = byte;
        else overflowed = 1;
        return 0;
    }
    const size_t stuffed = arrived;
    const uint8_t too_long = overflowed;
    arrived = overflowed = 0;
    if (too_long) return -ERROR_TOO_LONG;
    return stuffed ? read_frame(stuffed, found) : 0; /* zeros between frames mean nothing */
}

static void send_stuffed(const uint8_t *bytes, size_t size) {
    size_t at = 0;
    for (;;) {
        size_t run = 0;
        while (at + run < size && bytes[at + run] && run < LONGEST_RUN) run++;
        board_send((uint8_t)(run + 1));
        for (size_t i = 0; i < run; i++) board_send(bytes[at + i]);
        at += run;
        if (at >= size) break;
        if (run < LONGEST_RUN) at++; /* the zero, which the next run's length stands for */
    }
    board_send(0);
}

void link_send(uint8_t kind, uint32_t sequence, const void *body, size_t size) {
    static uint8_t outgoing[LONGEST];
    outgoing[0] = kind;
    memcpy(outgoing + 1, &sequence, sizeof sequence);
    memcpy(outgoing + LINK_HEAD, body, size);
    const size_t covered = LINK_HEAD + size;
    const uint32_t checksum = gruard_crc(0, outgoing, covered);
    memcpy(outgoing + covered, &checksum, sizeof checksum);
    send_stuffed(outgoing, covered + LINK_CHECKSUM);
}
