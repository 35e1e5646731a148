"""`python -m edge_runtime` is the command `gruard`."""

from edge_runtime.commands.main import main

main()
