"""`gruard run`: watch a source with a bundle, or with the current one of the store."""

import shlex
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import (
    kernel_option,
    language_option,
    store_option,
    trusted_key_option,
)
from edge_runtime.supervision.liveness import LONGEST_TIMEOUT

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from edge_runtime.commands.assembly import Assembled

_LOST_RECORDS = 1
INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""


def _duration(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    from edge_runtime.mute import parse_duration

    return None if text is None else parse_duration(text, "time")


def _names(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _words(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    """Return the words of a command, which a shell would see the same way; None without one."""
    try:
        words = None if text is None else tuple(shlex.split(text))
    except ValueError as error:
        raise click.BadParameter(f"{error}; write it as for a shell") from None
    if words == ():
        raise click.BadParameter("name a program")
    return words


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@store_option
@click.option(
    "--source",
    required=True,
    metavar="FILE|-|KIND:PLACE",
    help="CSV or JSON lines: a file, or - for stdin; or serial:, mqtt:, mqtts:, iio:, modbus:, "
    "python:; see docs/sources.md.",
)
@click.option(
    "--sink",
    "sinks",
    default=("-",),
    multiple=True,
    metavar="FILE.jsonl|-|mqtt://HOST/TOPIC",
    help="JSON lines: a file, or - for stdout (default); or a broker; may be repeated.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep all records here too, and send the missed ones when a network is back.",
)
@click.option(
    "--journal-size",
    type=ranges.JOURNAL_MEGABYTES,
    default=256,
    show_default=True,
    metavar="MB",
    help="Drop the oldest records of the journal beyond this size.",
)
@click.option(
    "--keep-readings",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep the raw readings here, for gruard readings; the minute before and after each alarm "
    "is kept longer.",
)
@click.option(
    "--keep-megabytes",
    type=ranges.JOURNAL_MEGABYTES,
    default=500,
    show_default=True,
    metavar="MB",
    help="Drop the oldest readings beyond this.",
)
@click.option(
    "--learn",
    callback=_duration,
    metavar="30m|24h|7d",
    help="Where the store has no bundle: keep so much of the readings, learn from it in the "
    "background, and let what was learned answer.",
)
@click.option(
    "--relearn",
    callback=_duration,
    metavar="7d",
    help="Learn again from the kept readings so often, by gruard relearn.",
)
@click.option(
    "--period",
    type=ranges.PERIOD,
    metavar="S",
    help="With --learn: seconds between readings, for sources that are asked: modbus:, iio:, "
    "mqtt:…/+, python:.",
)
@click.option(
    "--channels",
    callback=_names,
    metavar="A,B,…",
    help="With --learn: read only these; needed where the source does not name its own: mqtt:, "
    "python:, and serial: without ?columns=.",
)
@click.option(
    "--rate",
    type=ranges.RATE,
    metavar="HZ",
    help="Read the source at so many samples per second; default: as they come.",
)
@click.option(
    "--deadline",
    type=ranges.DEADLINE,
    metavar="S",
    help="Seconds the model may take for a sample; default: one period, within 0.05 and 1.",
)
@click.option(
    "--inject",
    default="",
    metavar="FAULTS",
    help="Inject faults: hang@1200, crash@2400, nan:CHANNEL@300+50, "
    "stuck:CHANNEL@300+50, level:CHANNEL@300+50*AMOUNT; several with commas.",
)
@click.option(
    "--on-alarm",
    callback=_words,
    metavar="COMMAND",
    help="Run COMMAND when an alarm begins and when it has ended, with the alarm as JSON on stdin; "
    "see docs/alarms.md.",
)
@click.option(
    "--healthy-minutes",
    type=ranges.HEALTHY_MINUTES,
    default=10.0,
    metavar="N",
    help="Keep a bundle on trial after so many healthy minutes.  [default: 10]",
)
@click.option(
    "--status",
    "status_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the state of the run to FILE, for gruard status and gruard top; best in /run.  "
    "[default: $RUNTIME_DIRECTORY/status.json where systemd sets that]",
)
@click.option(
    "--metrics",
    metavar="[ADDRESS:]PORT",
    help="Serve metrics for Prometheus over HTTP; only to this machine without ADDRESS.",
)
@click.option("--force", is_flag=True, help="Overwrite sink files that exist.")
@click.option("--append", is_flag=True, help="Append to sink files that exist.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for what the next start needs: how this run ended, and lasting changes of the "
    "machine.  [default: the service's STATE_DIRECTORY, if any]",
)
@click.option(
    "--watchdog",
    type=click.Path(path_type=Path),
    metavar="DEVICE",
    help="Let this device (/dev/watchdog) reset the machine when no samples are answered. Not "
    "under systemd, which has its own watchdog.",
)
@click.option(
    "--watchdog-timeout",
    type=click.IntRange(1, LONGEST_TIMEOUT),
    default=LONGEST_TIMEOUT,
    metavar="S",
    help=f"Seconds without an answered sample until then, at most {LONGEST_TIMEOUT}.  "
    f"[default: {LONGEST_TIMEOUT}]",
)
@click.option("--allow-failed", is_flag=True, help="Run a bundle whose validation failed.")
@kernel_option
@trusted_key_option
@language_option
@click.option(
    "--debug",
    is_flag=True,
    envvar="GRUARD_DEBUG",
    help="Let a worker that hangs or crashes print its stack to stderr.",
)
@click.option("--json", "as_json", is_flag=True, help="Summary as one JSON line on stderr.")
def run(as_json: bool, **words: Any) -> None:
    """Answer every sample of a source with one JSON record.

    Without BUNDLE, the current bundle of the store answers (see gruard install). A bundle that is
    installed during the run takes over between two samples, on trial. With --learn, an empty store
    gets its first bundle from the readings of this run (docs/learn.md).

    The model runs in a separate process; if that hangs or crashes, a statistical fallback answers
    (tier 3, flag FALLBACK) until the model is back. The summary goes to stderr.
    Exit code: 0, also after SIGTERM or SIGHUP, 1 if records could not be written, 2 for a problem
    you can fix, 130 after Ctrl-C.

    \b
    A recording, with an injected crash:
      gruard run pump-1.gruard --source day.csv --sink day.jsonl --rate 50 --inject crash@500
    A live stream:
      read-sensors | gruard run pump-1.gruard --source - | grep '"alarm":true'
    The same with updates while it runs:
      read-sensors | gruard run --store /var/lib/gruard --source - >> records.jsonl
    From an empty store: a day to learn how the machine behaves, then the model answers:
      gruard run --learn 24h --period 1 --store pump --sink records.jsonl \\
          --source 'modbus://192.168.1.20/1?registers=flow:holding:40001:int16'
    """
    from edge_runtime.commands.assembly import RunOptions, assemble
    from edge_runtime.files import refuse_one_file_twice

    if words["bundle"] and _named("store"):
        raise click.UsageError("name a BUNDLE or a --store, not both")
    check_learning(**words)
    if words["force"] and words["append"]:
        raise click.UsageError("--force overwrites what --append keeps; leave one out")
    refuse_one_file_twice(_files(**words))
    if words["source"].startswith("mqtt"):  # imported only then: OpenSSL takes memory
        from edge_runtime.address import refuse_own_messages

        refuse_own_messages(words["source"], words["sinks"])
    end_in_good_order()
    try:
        assembled = assemble(RunOptions(**words))
        code = _run(assembled, as_json)
    except Terminated:
        sys.exit(0)  # nothing was answered yet
    if assembled.switch:
        assembled.switch.spare()
    sys.exit(code)


def check_learning(
    bundle: Path | None,
    learn: float | None,
    relearn: float | None,
    period: float | None,
    channels: tuple[str, ...],
    trusted_keys: tuple[Path, ...],
    **_: Any,
) -> None:
    """Raise UsageError for options that do not go together with learning, or without it."""
    if learn is None and relearn is None:
        if period is not None or channels:
            raise click.UsageError("--period and --channels are for --learn; a bundle says both")
    elif bundle:
        raise click.UsageError("--learn and --relearn put bundles into a --store; name no BUNDLE")
    elif trusted_keys:
        raise click.UsageError(
            "what this machine learns has no signature, so --learn and --relearn go without "
            "--trusted-key and GRUARD_TRUSTED_KEYS"
        )


def _files(
    source: str, sinks: tuple[str, ...], status_file: Path | None, **_: Any
) -> "list[tuple[str, str | int]]":
    """Return the files that the run reads and writes, with the options that name them."""
    files: list[tuple[str, str | int]] = [("--source", 0 if source == "-" else source)]
    files += [("--sink", 1 if sink == "-" else sink) for sink in sinks if "://" not in sink]
    return files + ([("--status", str(status_file))] if status_file else [])


def _named(option: str) -> bool:
    """Return whether an option was given on the command line, not by the environment."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _run(assembled: "Assembled", as_json: bool) -> int:
    """Run to the end or to a signal, print the summary, and return the exit code."""
    supervisor = assembled.supervisor
    try:
        with assembled.watch:
            supervisor.run()
        stopped = 0
    except KeyboardInterrupt:
        stopped = INTERRUPTED
        assembled.delay.clear()
    except Terminated:
        stopped = 0  # a service manager's stop is an end in good order
        assembled.delay.clear()
    finally:
        if assembled.learning:
            assembled.learning.close()
        if assembled.command:
            assembled.command.close()
        supervisor.print_summary(as_json)
    supervisor.ended()
    return stopped or (_LOST_RECORDS if supervisor.summary.dropped else 0)


class Terminated(BaseException):
    """A signal asked the run to end."""


def end_in_good_order() -> None:
    """Raise Terminated at the first SIGTERM or SIGHUP, and ignore those after it.

    A terminal that is closed sends SIGHUP, often twice: the second must not interrupt the shutdown.
    A process started by nohup ignores SIGHUP already, and still does after this.
    """
    import signal

    numbers = [signal.SIGTERM, signal.SIGHUP]
    numbers = [each for each in numbers if signal.getsignal(each) is not signal.SIG_IGN]

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated

    for each in numbers:
        signal.signal(each, terminate)
