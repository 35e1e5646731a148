"""The beginning of a program in which no TFLite interpreter can be imported."""

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tflite_runtime", "ai_edge_litert", "tensorflow"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
"""
