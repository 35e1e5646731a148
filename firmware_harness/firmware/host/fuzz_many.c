/* The fuzzing target without libFuzzer: inputs on stdin, each after its length in 32 bits. Prints
 * the number of inputs, and of accepted blobs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern uint32_t fuzz_taken;

int main(void) {
    uint32_t size, count = 0;
    for (; fread(&size, sizeof size, 1, stdin) == 1; count++) {
        uint8_t *data = malloc(size ? size : 1);
        if (!data || fread(data, 1, size, stdin) != size) return 1;
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    printf("%u %u\n", count, fuzz_taken);
    return 0;
}
