"""Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

import click

SECONDS_BETWEEN_LINES = 10.0
BAR_WIDTH = 30


class Progress:
    """Shows training steps and their losses."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._last = 0.0
        self._smoothed: dict[str, float] = {}

    def say(self, sentence: str) -> None:
        """One sentence on a line of its own."""
        if self._terminal and self._last:
            click.echo("", err=True)
        click.echo(sentence, err=True)

    def report(self, step: int, losses: dict[str, float]) -> None:
        """Note the losses of `step` and show them when it is time."""
        for name, value in losses.items():
            self._smoothed[name] = 0.95 * self._smoothed.get(name, value) + 0.05 * value
        now = time.monotonic()
        pause = 0.2 if self._terminal else SECONDS_BETWEEN_LINES
        if step < self._total and now - self._last < pause:
            return
        self._last = now
        shown = "  ".join(f"{name} {value:.4f}" for name, value in self._smoothed.items())
        done = int(BAR_WIDTH * step / self._total)
        if self._terminal:
            bar = "█" * done + "·" * (BAR_WIDTH - done)
            click.echo(f"\r{bar} {step}/{self._total}  {shown} ", err=True, nl=False)
        else:
            click.echo(f"step {step}/{self._total}  {shown}", err=True)
