/* Run a part of the core often, for a count of its instructions.
 *
 *     arm_cost BLOB ROWS graph|step TIMES
 *
 * ROWS: float32 [n][channels], raw readings, taken again and again. Exit code 2 for bad input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gruard_detector.h"
#include "parts.h"

static void *contents(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) return NULL;
    *size = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*size);
    if (!data || fread(data, 1, *size, file) != *size) return NULL;
    fclose(file);
    return data;
}

int main(int count, char **words) {
    static gruard_model model;
    static gruard_detector detector;
    gruard_record record;
    size_t blob_size = 0, rows_size = 0;
    if (count != 5) return 2;
    void *blob = contents(words[1], &blob_size);
    const float *rows = contents(words[2], &rows_size);
    if (!blob || !rows || gruard_open(&model, blob, blob_size)) return 2;
    void *memory = malloc(gruard_memory(&model));
    if (!memory || gruard_start(&detector, &model, memory, gruard_memory(&model))) return 2;
    const size_t all = rows_size / sizeof *rows / model.channels;
    const size_t times = strtoul(words[4], NULL, 10);
    for (size_t i = 0; i < times; i++)
        if (!strcmp(words[3], "graph")) gruard_run_graph(&model, detector.arena);
        else gruard_step(&detector, rows + i % all * model.channels, &record);
    return 0;
}
