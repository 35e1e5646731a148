/* Samples analog inputs, and prints an alarm with the channel and the score.
 *
 * The inputs are the io-channels of the devicetree node zephyr,user, in the order of
 * gruard_channels. Change reading() to what your sensors need: values are in the units of the
 * recording that the detector learned from.
 */
#include <math.h>

#include <zephyr/drivers/adc.h>
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

#include "gruard.h"
#include "gruard_blob.h"
#include "gruard_detector.h"
#include "gruard_selftest.h"
#include "gruard_words.h"

#define SENSOR(node, property, index) ADC_DT_SPEC_GET_BY_IDX(node, index),

static const struct adc_dt_spec sensors[] = {
	DT_FOREACH_PROP_ELEM(DT_PATH(zephyr_user), io_channels, SENSOR)
};
BUILD_ASSERT(ARRAY_SIZE(sensors) == GRUARD_BLOB_CHANNELS,
	     "zephyr,user needs an io-channel for each channel of gruard");

static gruard_model model;
static gruard_detector detector;
static float memory[GRUARD_BLOB_MEMORY / sizeof(float)];

static float reading(const struct adc_dt_spec *sensor)
{
	int16_t code;
	struct adc_sequence sequence = {.buffer = &code, .buffer_size = sizeof(code)};

	if (adc_sequence_init_dt(sensor, &sequence) || adc_read_dt(sensor, &sequence)) {
		return NAN;
	}
	return (float)code;
}

/* Why nothing can be watched, NULL if it can. */
static const char *start(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(sensors); i++) {
		if (!adc_is_ready_dt(&sensors[i]) || adc_channel_setup_dt(&sensors[i])) {
			return "an ADC is not ready";
		}
	}
	if (gruard_open(&model, gruard_blob, GRUARD_BLOB_BYTES)) {
		return "the bundle is damaged";
	}
	const char *reason = gruard_selftest(&model, &detector, memory, sizeof(memory));

	if (reason) {
		return reason;
	}
	return gruard_start(&detector, &model, memory, sizeof(memory)) ? "too little memory" : NULL;
}

int main(void)
{
	const char *reason = start();

	while (reason) {
		printk("REFUSED: %s\n", reason);
		k_msleep(5000);
	}
	printk("watching\n");
	for (int64_t next = k_uptime_get();; next += GRUARD_BLOB_PERIOD_MS) {
		float values[GRUARD_BLOB_CHANNELS];
		char sentence[GRUARD_SENTENCE];
		gruard_record record;

		k_sleep(K_TIMEOUT_ABS_MS(next));
		for (size_t i = 0; i < ARRAY_SIZE(sensors); i++) {
			values[i] = reading(&sensors[i]);
		}
		gruard_step(&detector, values, &record);
		if (!record.alarm && record.index % 100) {
			continue;
		}
		gruard_describe(&detector, &record, sentence, sizeof(sentence));
		printk("%s\n", sentence);
	}
	return 0;
}
