"""A progress bar on stderr where somebody looks, and nothing in a pipe or a log."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import click

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], length: int, quiet: bool = False) -> Iterator[Item]:
    """`items`, of which there are `length`, counted on a terminal unless `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, length=length, file=sys.stderr) as bar:
        yield from bar
