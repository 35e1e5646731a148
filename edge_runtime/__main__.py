"""`python -m edge_runtime` is the command `gruard`."""

from edge_runtime.cli import main

main()
