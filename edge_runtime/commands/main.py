"""The command `gruard`: one group, each command in a module of its own."""

import sys

import click

from edge_runtime import __version__
from edge_runtime.commands.calibrate import calibrate
from edge_runtime.commands.choose import rollback, use
from edge_runtime.commands.inspect import inspect, selftest
from edge_runtime.commands.install import install
from edge_runtime.commands.journal import journal
from edge_runtime.commands.listing import list_bundles
from edge_runtime.commands.replay import replay
from edge_runtime.commands.run import INTERRUPTED, run
from edge_runtime.commands.service import service
from edge_runtime.commands.status import status, top
from edge_runtime.errors import GruardError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gruard")
def gruard() -> None:
    """Watch a machine's sensors, sample by sample, and never go silent.

    A bundle (NAME-VERSION.gruard) holds the model and everything it needs. Samples go in as CSV,
    one JSON record per sample comes out: a score, an alarm, and who vouches for it.

    Try: gruard run pump-1.gruard --source recording.csv --sink records.jsonl
    """


COMMANDS = (
    run, status, top, replay, journal, inspect, selftest, calibrate,
    install, list_bundles, use, rollback, service,
)  # fmt: skip
for command in COMMANDS:
    gruard.add_command(command)


def main() -> None:
    """Run the command line; a problem the user can mend is one line on stderr and exit code 2."""
    try:
        sys.exit(gruard(prog_name="gruard", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:  # how click passes Ctrl-C on
        sys.exit(INTERRUPTED)
    except GruardError as error:
        click.echo(f"gruard: {error}", err=True)
        sys.exit(error.exit_code)
