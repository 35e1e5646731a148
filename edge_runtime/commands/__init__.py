"""The commands' room: `gruard` and its sub-commands, each in a module of its own."""
