"""The supervisor: its loop, the worker (inference process) it watches, and the pipes between."""
