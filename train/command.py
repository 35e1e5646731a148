"""How a workstation command ends: the verdict as exit code, an error as one line."""

import sys
from typing import NoReturn

import click

from edge_runtime.errors import GruardError

INTERRUPTED = 130


def run_command(cli: click.Group, name: str, interrupted: str) -> NoReturn:
    """Run `cli` and exit; whatever the user can mend is one line on stderr that begins with `name`.

    interrupted: the sentence for Ctrl-C.
    """
    try:
        sys.exit(cli(standalone_mode=False))
    except GruardError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # A full disk or a missing permission, wherever it strikes.
        click.echo(f"{name}: {error.filename or 'writing'}: {error.strerror}", err=True)
        sys.exit(GruardError.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{name}: {interrupted}", err=True)
        sys.exit(INTERRUPTED)
