"""What a workstation command writes to its terminal: progress, errors, and an exit code."""

import sys
import time
from typing import NoReturn

import click

from edge_runtime.errors import GruardError

INTERRUPTED = 130
SECONDS_BETWEEN_LINES = 10.0
BAR_WIDTH = 30


def run_command(cli: click.Group, name: str, interrupted: str) -> NoReturn:
    """Run `cli` and exit; print an error that the user can fix as one line that begins with `name`.

    interrupted: the sentence for Ctrl-C.
    """
    try:
        sys.exit(cli(standalone_mode=False))
    except GruardError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # For example a full disk or a missing permission.
        click.echo(f"{name}: {error.filename or 'writing'}: {error.strerror}", err=True)
        sys.exit(GruardError.exit_code)
    except MemoryError:
        click.echo(f"{name}: not enough memory; give fewer rows, or stop other programs", err=True)
        sys.exit(GruardError.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{name}: {interrupted}", err=True)
        sys.exit(INTERRUPTED)


class Progress:
    """Progress of a training on stderr: a bar on a terminal, otherwise a line every 10 s."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._last = 0.0
        self._first: tuple[int, float] | None = None
        self._smoothed: dict[str, float] = {}

    def say(self, sentence: str) -> None:
        """Print one sentence on its own line."""
        if self._terminal and self._last:
            click.echo("", err=True)
        click.echo(sentence, err=True)

    def report(self, step: int, losses: dict[str, float]) -> None:
        """Smooth the losses of `step`, and print them unless the last print was too recent."""
        for name, value in losses.items():
            self._smoothed[name] = 0.95 * self._smoothed.get(name, value) + 0.05 * value
        now = time.monotonic()
        self._first = self._first or (step, now)
        pause = 0.2 if self._terminal else SECONDS_BETWEEN_LINES
        if step < self._total and now - self._last < pause:
            return
        self._last = now
        shown = "  ".join(f"{name} {value:.4f}" for name, value in self._smoothed.items())
        shown += self._left(step, now)
        done = int(BAR_WIDTH * step / self._total)
        if self._terminal:
            bar = "█" * done + "·" * (BAR_WIDTH - done)
            click.echo(f"\r{bar} {step}/{self._total}  {shown} ", err=True, nl=False)
        else:
            click.echo(f"step {step}/{self._total}  {shown}", err=True)

    def _left(self, step: int, now: float) -> str:
        """Say how long the remaining steps take; the first step, which compiles, does not count."""
        first, since = self._first or (step, now)
        if not first < step < self._total:
            return ""
        return f"  at most {(now - since) / (step - first) * (self._total - step):.0f} s left"
