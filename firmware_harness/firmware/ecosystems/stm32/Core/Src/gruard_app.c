/* Samples analog inputs, and prints an alarm with the channel and the score.
 *
 * ADC 1 converts a rank for each of gruard_channels, one with each start (discontinuous mode).
 * Change reading() to what your sensors need: values are in the units of the recording that the
 * detector learned from.
 */
#include "gruard_app.h"

#include <math.h>
#include <string.h>

#include "gruard.h"
#include "gruard_blob.h"
#include "gruard_detector.h"
#include "gruard_selftest.h"
#include "gruard_words.h"
#include "main.h"

enum { PATIENCE_MS = 100 };

extern ADC_HandleTypeDef hadc1;
extern UART_HandleTypeDef huart2;

static gruard_model model;
static gruard_detector detector;
static float memory[GRUARD_BLOB_MEMORY / sizeof(float)];
static uint32_t sampled;

static void say(const char *text) {
    HAL_UART_Transmit(&huart2, (const uint8_t *)text, (uint16_t)strlen(text), PATIENCE_MS);
}

/* Of the next rank. */
static float reading(void) {
    if (HAL_ADC_Start(&hadc1) != HAL_OK) return NAN;
    if (HAL_ADC_PollForConversion(&hadc1, PATIENCE_MS) != HAL_OK) return NAN;
    return (float)HAL_ADC_GetValue(&hadc1);
}

/* Without a sound detector nothing is watched, so say so again and again. */
static void refuse(const char *reason) {
    for (;;) {
        say("REFUSED: "), say(reason), say("\r\n");
        HAL_Delay(5000);
    }
}

void gruard_app_start(void) {
    if (gruard_open(&model, gruard_blob, GRUARD_BLOB_BYTES)) refuse("the bundle is damaged");
    const char *reason = gruard_selftest(&model, &detector, memory, sizeof memory);
    if (reason) refuse(reason);
    if (gruard_start(&detector, &model, memory, sizeof memory)) refuse("too little memory");
    say("watching\r\n");
    sampled = HAL_GetTick();
}

void gruard_app_run(void) {
    if (HAL_GetTick() - sampled < GRUARD_BLOB_PERIOD_MS) return;
    sampled += GRUARD_BLOB_PERIOD_MS; /* the detector counts time in steps */
    float values[GRUARD_BLOB_CHANNELS];
    for (int i = 0; i < GRUARD_BLOB_CHANNELS; i++) values[i] = reading();
    gruard_record record;
    gruard_step(&detector, values, &record);
    if (!record.alarm && record.index % 100) return;
    char sentence[GRUARD_SENTENCE];
    gruard_describe(&detector, &record, sentence, sizeof sentence);
    say(sentence), say("\r\n");
}
