"""The firmware's room: a bundle as C on a microcontroller, emulated, compared and injured."""
