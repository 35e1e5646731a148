"""The command `gruard`: the group of all commands, and its last resort for errors."""

import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from edge_runtime import __version__
from edge_runtime.commands.bundle import calibrate, inspect, selftest
from edge_runtime.commands.learn import learn
from edge_runtime.commands.look import look
from edge_runtime.commands.owner import accept, mark, marks, mute, unmute
from edge_runtime.commands.picture import picture
from edge_runtime.commands.readings import readings, record
from edge_runtime.commands.relearn import relearn
from edge_runtime.commands.replay import replay
from edge_runtime.commands.run import INTERRUPTED, run
from edge_runtime.commands.service import service
from edge_runtime.commands.status import journal, status, top
from edge_runtime.commands.store import install, list_bundles, rollback, use
from edge_runtime.commands.update import update
from edge_runtime.errors import GruardError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gruard")
def gruard() -> None:
    """Watch a machine's sensors, sample by sample, and never go silent.

    A bundle (NAME-VERSION.gruard) holds the model and everything it needs. Samples go in as CSV,
    one JSON record per sample comes out: a score, an alarm, and whether a healthy model is behind.

    Try: gruard run pump-1.gruard --source recording.csv --sink records.jsonl
    """


COMMANDS = (
    record, look, learn, relearn, run, status, top, accept, mute, unmute, mark, marks, picture,
    replay, readings, journal, inspect, selftest, calibrate, install, list_bundles, use, rollback,
    update, service,
)  # fmt: skip
for command in COMMANDS:
    gruard.add_command(command)


INTERNAL = 70
"""Exit code after an error in gruard itself, EX_SOFTWARE of sysexits.h."""


def main() -> None:
    """Run the command line; a problem that the user can fix is one line on stderr, exit code 2."""
    try:
        sys.exit(gruard(prog_name="gruard", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:  # how click passes Ctrl-C on
        sys.exit(INTERRUPTED)
    except GruardError as error:
        _end(str(error), error.exit_code)
    except Exception as error:
        if advice := _advice(error):
            _end(advice, GruardError.exit_code)
        what = f"{type(error).__name__}: {error} ({_place(error)})"
        _end(f"internal error: {what}; please report this line", INTERNAL)


def _advice(error: Exception) -> str:
    """Return what to do when the system lacks a resource; empty for any other error."""
    match error:
        case MemoryError():
            return "out of memory; end other programs or give gruard more, and start it again"
        case OSError(filename=None):
            return f"the system refused a call ({error.strerror}); is there room for the output?"
        case OSError():
            return f"{error.filename}: {error.strerror}; fix that and run the command again"
        case RuntimeError() if "start new thread" in str(error):
            return "no more threads can be started; raise TasksMax= or ulimit -u"
        case _:
            return ""


def _end(text: str, code: int) -> NoReturn:
    """Print why in one line, if that is still possible, and exit."""
    with suppress(OSError, MemoryError):
        click.echo(f"gruard: {text}", err=True)
    sys.exit(code)


def _place(error: Exception) -> str:
    """Return the file and line in gruard that an error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    root = Path(__file__).parents[1]
    ours = [frame for frame in frames if root in Path(frame.filename).parents]
    return ", ".join(f"{Path(frame.filename).name} line {frame.lineno}" for frame in ours[-2:])
