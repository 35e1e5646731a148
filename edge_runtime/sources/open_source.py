"""From what a user writes after --source to a source; each kind is imported when it is used."""

from collections.abc import Sequence

from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.source import Source


def open_source(
    target: str, channels: Sequence[str], period: float | None, complaints: Complaints
) -> Source:
    """The source that `target` names: a file, or - for stdin.

    Raises GruardError when it cannot be opened, lacks a channel, or is a recording whose samples
    are not `period` seconds apart.
    """
    from edge_runtime.sources.line_source import open_lines
    from edge_runtime.sources.sample_period import check_file_period

    if target != "-":
        check_file_period(target, period)
    return open_lines(target, channels, complaints)
