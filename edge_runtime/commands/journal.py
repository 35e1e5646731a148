"""`gruard journal`: what a journal holds, as JSON lines."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def journal(folder: Path) -> None:
    """Print the records in DIR, the journal of a run, oldest first. Changes nothing in it.

    The run may be going on. How many records there are, and how many are missing between them
    (damaged, or lost in a power cut), goes to stderr.

    Example: gruard journal /var/lib/gruard/journal > records.jsonl
    """
    from edge_runtime.errors import GruardError
    from edge_runtime.journal.disk import Disk
    from edge_runtime.journal.segments import entries_after

    printed = missing = last = 0
    try:
        for entry in entries_after(Disk(folder), 0):
            missing += entry.sequence - last - 1 if last else 0
            last = entry.sequence
            click.echo(entry.message)
            printed += 1
    except BrokenPipeError:
        raise
    except OSError as error:
        raise GruardError(f"{folder}: cannot be read as a journal ({error.strerror})") from None
    click.echo(f"gruard: {printed} records, {missing} missing between them", err=True)
