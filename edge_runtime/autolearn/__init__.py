"""Learning during a run: when to learn, the child process that does it, and what it does."""
