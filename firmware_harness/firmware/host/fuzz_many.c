/* The fuzzing target without libFuzzer: inputs on stdin, each after its length in 32 bits. Prints how
 * many there were. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(void) {
    uint32_t size, count = 0;
    for (; fread(&size, sizeof size, 1, stdin) == 1; count++) {
        uint8_t *data = malloc(size ? size : 1);
        if (!data || fread(data, 1, size, stdin) != size) return 1;
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    printf("%u\n", count);
    return 0;
}
