static inline TickType_t xTaskGetTickCount(void) { return 0; }
static inline void vTaskDelay(TickType_t ticks) {
    (void)ticks;
    for (;;); /* only after a refusal */
}
static inline void vTaskDelayUntil(TickType_t *last, TickType_t ticks) { *last += ticks; }
