/* What stands in for an ecosystem's hardware: rows of readings, a clock that waits for nobody, and
 * the UART of an emulated board. */
#ifndef EDGE_H
#define EDGE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void edge_start(void);
/* Of the present row; the next one begins with channel 0. Says "end" after the last row. */
int edge_reading(int channel);
void edge_say(const char *text);
/* `format` with "%s" only. */
int edge_print(const char *format, ...);
/* A sample period later with each call. */
uint32_t edge_milliseconds(void);

/* Made by the test. */
extern const int edge_rows[], edge_row_count, edge_channels, edge_period;

#ifdef __cplusplus
}
#endif

#endif
