#include "edge.h"
#include "gruard_app.h"
#include "main.h"

ADC_HandleTypeDef hadc1;
UART_HandleTypeDef huart2;

HAL_StatusTypeDef HAL_ADC_Start(ADC_HandleTypeDef *adc) {
    (void)adc;
    return HAL_OK;
}
HAL_StatusTypeDef HAL_ADC_PollForConversion(ADC_HandleTypeDef *adc, uint32_t patience) {
    (void)adc, (void)patience;
    return HAL_OK;
}
/* In discontinuous mode each start converts the next rank. */
uint32_t HAL_ADC_GetValue(const ADC_HandleTypeDef *adc) {
    (void)adc;
    static int rank;
    const int value = edge_reading(rank);
    rank = (rank + 1) % edge_channels;
    return (uint32_t)value;
}
HAL_StatusTypeDef HAL_UART_Transmit(UART_HandleTypeDef *uart, const uint8_t *data, uint16_t size,
                                    uint32_t patience) {
    (void)uart, (void)patience;
    for (uint16_t i = 0; i < size; i++) {
        const char text[2] = {(char)data[i], 0};
        if (data[i] != '\r') edge_say(text);
    }
    return HAL_OK;
}
uint32_t HAL_GetTick(void) { return edge_milliseconds(); }
void HAL_Delay(uint32_t milliseconds) {
    (void)milliseconds;
    for (;;); /* only after a refusal */
}

int main(void) {
    edge_start();
    gruard_app_start();
    for (;;) gruard_app_run();
}
