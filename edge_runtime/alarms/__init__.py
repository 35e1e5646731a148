"""Alarms of a run: followed and remembered, passed on to commands, and drawn."""
