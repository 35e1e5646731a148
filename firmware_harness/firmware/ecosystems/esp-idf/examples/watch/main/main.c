/* Samples analog inputs, and prints an alarm with the channel and the score.
 *
 * Channel 0 of ADC 1 is the first of gruard_channels, channel 1 the second, and so on. Change
 * reading() to what your sensors need: values are in the units of the recording that the detector
 * learned from.
 */
#include <math.h>
#include <stdio.h>

#include "esp_adc/adc_oneshot.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "gruard.h"
#include "gruard_blob.h"
#include "gruard_detector.h"
#include "gruard_selftest.h"
#include "gruard_words.h"

static gruard_model model;
static gruard_detector detector;
static float memory[GRUARD_BLOB_MEMORY / sizeof(float)];
static adc_oneshot_unit_handle_t adc;

static void start_sensors(void) {
    const adc_oneshot_unit_init_cfg_t unit = {.unit_id = ADC_UNIT_1};
    const adc_oneshot_chan_cfg_t input = {.atten = ADC_ATTEN_DB_12,
                                          .bitwidth = ADC_BITWIDTH_DEFAULT};
    ESP_ERROR_CHECK(adc_oneshot_new_unit(&unit, &adc));
    for (int i = 0; i < GRUARD_BLOB_CHANNELS; i++)
        ESP_ERROR_CHECK(adc_oneshot_config_channel(adc, (adc_channel_t)i, &input));
}

static float reading(int channel) {
    int code;
    return adc_oneshot_read(adc, (adc_channel_t)channel, &code) == ESP_OK ? (float)code : NAN;
}

/* Why the detector cannot start, NULL if it has. */
static const char *start_detector(void) {
    if (gruard_open(&model, gruard_blob, GRUARD_BLOB_BYTES)) return "the bundle is damaged";
    const char *reason = gruard_selftest(&model, &detector, memory, sizeof memory);
    if (reason) return reason;
    return gruard_start(&detector, &model, memory, sizeof memory) ? "too little memory" : NULL;
}

void app_main(void) {
    start_sensors();
    const char *reason = start_detector();
    while (reason) {
        printf("REFUSED: %s\n", reason);
        vTaskDelay(pdMS_TO_TICKS(5000));
    }
    printf("watching\n");
    TickType_t sampled = xTaskGetTickCount();
    for (;;) {
        vTaskDelayUntil(&sampled, pdMS_TO_TICKS(GRUARD_BLOB_PERIOD_MS));
        float values[GRUARD_BLOB_CHANNELS];
        for (int i = 0; i < GRUARD_BLOB_CHANNELS; i++) values[i] = reading(i);
        gruard_record record;
        gruard_step(&detector, values, &record);
        if (!record.alarm && record.index % 100) continue;
        char sentence[GRUARD_SENTENCE];
        gruard_describe(&detector, &record, sentence, sizeof sentence);
        printf("%s\n", sentence);
    }
}
