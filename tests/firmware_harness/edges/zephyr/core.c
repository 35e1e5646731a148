/* Zephyr calls main() itself; the example is compiled with another name for it. */
#include "edge.h"

int example_main(void);

int main(void) {
    edge_start();
    return example_main();
}
