/* The core as a program: rows in, records out.
 *
 *     driver BLOB < ROWS > RECORDS
 *
 * ROWS: float32 [n][channels], raw readings. RECORDS: gruard_record [n], as in memory. Exit code 2
 * and a line on stderr for bad input.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gruard_detector.h"

static int refuse(const char *what, int number) {
    fprintf(stderr, "%s (%d)\n", what, number);
    return 2;
}

/* Read the whole file into a block of exactly its size, so that a sanitiser sees overruns. */
static void *contents(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) return NULL;
    *size = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*size ? *size : 1);
    if (!data || fread(data, 1, *size, file) != *size) return NULL;
    fclose(file);
    return data;
}

static int run(gruard_detector *detector, uint32_t channels) {
    float values[GRUARD_MOST_CHANNELS];
    gruard_record record;
    while (fread(values, sizeof *values, channels, stdin) == channels) {
        gruard_step(detector, values, &record);
        if (fwrite(&record, sizeof record, 1, stdout) != 1) return refuse("stdout is closed", 0);
    }
    return fflush(stdout) ? refuse("stdout is closed", 0) : 0;
}

static int watch(const void *blob, size_t size) {
    gruard_model model;
    gruard_detector detector;
    const gruard_error error = gruard_open(&model, blob, size);
    if (error) return refuse("the blob is refused", (int)error);
    void *memory = malloc(gruard_memory(&model));
    if (!memory || gruard_start(&detector, &model, memory, gruard_memory(&model)))
        return refuse("out of memory", 0);
    const int code = run(&detector, model.channels);
    free(memory);
    return code;
}

int main(int count, char **words) {
    size_t size;
    if (count != 2) return refuse("driver BLOB < ROWS > RECORDS", count);
    void *blob = contents(words[1], &size);
    if (!blob) return refuse("the blob can't be read", 0);
    const int code = watch(blob, size);
    free(blob);
    return code;
}
