"""The checks of the validation.

Rollouts of both models come in, `Check` objects go out.
"""
