"""The checks of the validation, a kind each.

Rollouts of both models come in, a verdict per check goes out. A check judges what others computed:
nothing here runs a model.
"""
