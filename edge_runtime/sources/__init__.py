"""The sources' room: where samples come from, and what may be wrong with them."""
