// Samples analog inputs, and prints an alarm with the channel and the score.
//
// A0 is the first channel of gruard_channels, A1 the second, and so on. Change reading() to what
// your sensors need: values are in the units of the recording that the detector learned from.
#include <Arduino.h>
#include <gruard.h>
#include <gruard_blob.h>
#include <gruard_detector.h>
#include <gruard_selftest.h>
#include <gruard_words.h>

static gruard_model model;
static gruard_detector detector;
static float memory[GRUARD_BLOB_MEMORY / sizeof(float)];
static uint32_t sampled;

static float reading(int channel) { return analogRead(A0 + channel); }

// Without a sound detector nothing is watched, so say so again and again.
static void refuse(const char *reason) {
    for (;;) {
        Serial.print("REFUSED: ");
        Serial.println(reason);
        delay(5000);
    }
}

void setup() {
    Serial.begin(115200);
    if (gruard_open(&model, gruard_blob, GRUARD_BLOB_BYTES)) refuse("the bundle is damaged");
    const char *reason = gruard_selftest(&model, &detector, memory, sizeof memory);
    if (reason) refuse(reason);
    if (gruard_start(&detector, &model, memory, sizeof memory)) refuse("too little memory");
    Serial.println("watching");
    sampled = millis();
}

void loop() {
    if (millis() - sampled < GRUARD_BLOB_PERIOD_MS) return;
    sampled += GRUARD_BLOB_PERIOD_MS; // the detector counts time in steps
    float values[GRUARD_BLOB_CHANNELS];
    for (int i = 0; i < GRUARD_BLOB_CHANNELS; i++) values[i] = reading(i);
    gruard_record record;
    gruard_step(&detector, values, &record);
    if (!record.alarm && record.index % 100) return;
    char sentence[GRUARD_SENTENCE];
    gruard_describe(&detector, &record, sentence, sizeof sentence);
    Serial.println(sentence);
}
