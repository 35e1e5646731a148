"""The supervisor's room: the loop, the inference process it watches, and how the two talk."""
