/* As CubeMX makes it: the HAL. */
#include <stdint.h>

typedef struct { int rank; } ADC_HandleTypeDef;
typedef struct { int number; } UART_HandleTypeDef;
typedef enum { HAL_OK, HAL_ERROR } HAL_StatusTypeDef;

HAL_StatusTypeDef HAL_ADC_Start(ADC_HandleTypeDef *adc);
HAL_StatusTypeDef HAL_ADC_PollForConversion(ADC_HandleTypeDef *adc, uint32_t patience);
uint32_t HAL_ADC_GetValue(const ADC_HandleTypeDef *adc);
HAL_StatusTypeDef HAL_UART_Transmit(UART_HandleTypeDef *uart, const uint8_t *data, uint16_t size,
                                    uint32_t patience);
uint32_t HAL_GetTick(void);
void HAL_Delay(uint32_t milliseconds);
