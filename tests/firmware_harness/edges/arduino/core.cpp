#include "Arduino.h"
#include "edge.h"

SerialPort Serial;
void SerialPort::begin(unsigned long) {}
void SerialPort::print(const char *text) { edge_say(text); }
void SerialPort::println(const char *text) { edge_say(text), edge_say("\n"); }

unsigned long millis() { return edge_milliseconds(); }
void delay(unsigned long) {
    for (;;); // only after a refusal
}
int analogRead(uint8_t pin) { return edge_reading(pin - A0); }

int main() {
    edge_start();
    setup();
    for (;;) loop();
}
