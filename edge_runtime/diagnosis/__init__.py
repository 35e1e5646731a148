"""The diagnosis' room: which channels an alarm is about, and what kind of fault they show."""
