"""The calibration's room: from a wished number of false alarms per day to a threshold."""
