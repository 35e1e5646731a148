#include "edge.h"

#define printk edge_print
