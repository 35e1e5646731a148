"""The command `gruard` and its sub-commands."""
