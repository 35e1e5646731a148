#include <stddef.h>
#include <stdint.h>

#define BUILD_ASSERT(condition, message) _Static_assert(condition, message)
#define ARRAY_SIZE(array) (sizeof(array) / sizeof(array)[0])
#define K_TIMEOUT_ABS_MS(milliseconds) (milliseconds)

static inline int64_t k_uptime_get(void) { return 0; }
static inline void k_sleep(int64_t until) { (void)until; }
static inline void k_msleep(int32_t milliseconds) {
    (void)milliseconds;
    for (;;); /* only after a refusal */
}
