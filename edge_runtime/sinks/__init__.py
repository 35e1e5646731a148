"""The sinks' room: where records go."""
