#include "edge.h"

void app_main(void);

int main(void) {
    edge_start();
    app_main();
}
