"""From what a user writes after --sink to a sink; each kind is imported when it is used."""

from collections.abc import Callable, Sequence

from edge_runtime.sinks.queued import Queued
from edge_runtime.sinks.several import Several
from edge_runtime.sinks.sink import Sink


def open_sinks(
    targets: Sequence[str], force: bool, log: Callable[[str], None] | None = None
) -> Sink:
    """The sinks that `targets` name, as one; each is a file, or - for stdout.

    log: where to tell of a sink that does not keep up, which then loses records; None lets the run
    wait for its sinks instead.
    Raises GruardError when one cannot be opened; then none stays open.
    """
    opened: list[Sink] = []
    try:
        for target in targets:
            sink = _open_sink(target, force)
            opened.append(Queued(sink, log) if log else sink)
    except BaseException:
        for sink in opened:
            sink.close()
        raise
    return opened[0] if len(opened) == 1 else Several(opened)


def _open_sink(target: str, force: bool) -> Sink:
    from edge_runtime.sinks.json_lines import open_json_lines

    return open_json_lines(target, force)
