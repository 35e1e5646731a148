"""`gruard journal`: what a journal holds, as JSON lines."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def journal(folder: Path) -> None:
    """Print the records in DIR, the journal of a run, oldest first. Changes nothing in it.

    The run may be going on. To stderr goes how many records there are, how many are missing between
    them (damaged, or lost in a power cut), and how many entries are skipped because they are no
    records that this version understands.

    Example: gruard journal /var/lib/gruard/journal > records.jsonl
    """
    from edge_runtime.errors import GruardError
    from edge_runtime.journal.disk import Disk
    from edge_runtime.journal.segments import entries_after
    from edge_runtime.sinks.message import fields_of

    printed = missing = skipped = last = 0
    try:
        for entry in entries_after(Disk(folder), 0):
            missing += entry.sequence - last - 1 if last else 0
            last = entry.sequence
            try:
                fields_of(entry.message)
            except ValueError:
                skipped += 1
                continue
            click.echo(entry.message)
            printed += 1
    except BrokenPipeError:
        raise
    except OSError as error:
        raise GruardError(f"{folder}: cannot be read as a journal ({error.strerror})") from None
    told = f"gruard: {printed} records, {missing} missing between them"
    click.echo(told + (f", {skipped} skipped as no records" if skipped else ""), err=True)
