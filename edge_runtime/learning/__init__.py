"""Learning a linear detector: recordings of a healthy machine come in, a bundle goes out."""
