"""The device's room: a bundle and samples come in, one record per sample goes out.

Everything here ships in the device wheel and may import the standard library, numpy, click and,
lazily, a TFLite interpreter. Never import TensorFlow, train, convert or firmware_harness here.
"""

__version__ = "0.1.0"
