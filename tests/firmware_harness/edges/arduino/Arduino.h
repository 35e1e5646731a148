#ifndef ARDUINO_H
#define ARDUINO_H

#include <stddef.h>
#include <stdint.h>

enum { A0 = 14 };

#ifdef __cplusplus
extern "C" {
#endif
unsigned long millis(void);
void delay(unsigned long milliseconds);
int analogRead(uint8_t pin);
#ifdef __cplusplus
}

struct SerialPort {
    void begin(unsigned long baud);
    void print(const char *text);
    void println(const char *text);
};
extern SerialPort Serial;
void setup();
void loop();
#endif

#endif
