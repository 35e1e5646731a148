"""Alarms: what one is, which are remembered, who is told of them, and their pictures."""
