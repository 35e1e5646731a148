"""The proof as programs and people read it.

A manifest and its proof come in, report.json and report.html go out.
"""
