"""Options that several commands share, and the progress bar."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from edge_runtime.columns import Columns
from edge_runtime.commands import ranges
from edge_runtime.detector.kernels import CORE_KERNEL_ID, INT8_KERNELS, Delegate, Kernel
from edge_runtime.supervision.starts import service_folder
from edge_runtime.words import LANGUAGES, language_of


def default_store() -> Path:
    """Return the default folder for bundles: systemd's StateDirectory, else the user's own."""
    if service := service_folder(os.environ, "STATE_DIRECTORY"):
        return service
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    except RuntimeError:  # a user without a home, as in a container or an early boot
        home = "/var/lib"
    return Path(home) / "gruard"


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_store,
    envvar="GRUARD_STORE",
    metavar="DIR",
    help="Folder of the installed bundles.  [default: GRUARD_STORE, else STATE_DIRECTORY, which "
    "systemd sets, else ~/.local/state/gruard]",
)
TRUSTED_KEYS = "GRUARD_TRUSTED_KEYS"


false_alarms_option = click.option(
    "--false-alarms-per-day",
    "wish",
    default=1.0,
    show_default=True,
    type=ranges.FALSE_ALARMS_PER_DAY,
    help="Target number of false alarms.",
)
exclude_option = click.option(
    "--exclude",
    multiple=True,
    metavar="FROM..TO",
    help="Leave out these rows ('1500..8000') or times ('2026-05-01 04:10..22:13'); repeatable.",
)
period_option = click.option(
    "--period",
    type=ranges.PERIOD,
    help="Seconds between samples.  [default: from the time column]",
)
time_column_option = click.option(
    "--time-column",
    help="Name of the time column.  [default: the column that contains times]",
)


def names(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Return the names in an option, which commas separate; () without it."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


label_column_option = click.option(
    "--label-column", help="Name of the label column, 1 = anomalous.  [default: label, anomaly]"
)
channels_option = click.option(
    "--channels",
    "chosen",
    callback=names,
    metavar="A,B,…",
    help="Only these columns are channels.  [default: all columns of numbers that change]",
)
ignore_option = click.option(
    "--ignore",
    "ignored",
    callback=names,
    metavar="A,B,…",
    help="These columns are no channels, whatever they hold.",
)
counter_option = click.option(
    "--counter",
    "counters",
    multiple=True,
    metavar="NAME",
    help="This column counts up (hours, litres, pulses): watch its gain per sample; repeatable.",
)


def column_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what the columns of recordings are, of which three become `said`."""

    @period_option
    @time_column_option
    @label_column_option
    @channels_option
    @ignore_option
    @counter_option
    @functools.wraps(command)
    def with_columns(
        time_column: str | None, label_column: str | None, counters: tuple[str, ...], **others: Any
    ) -> None:
        command(said=Columns(time_column, label_column, counters=counters), **others)

    return with_columns


language_option = click.option(
    "--language",
    type=click.Choice(LANGUAGES),
    default=lambda: language_of(os.environ),
    help="Language of alarms in words.  [default: that of LANG, else en]",
)


def _named_keys(
    context: click.Context, parameter: click.Parameter, keys: tuple[str, ...]
) -> tuple[Path, ...]:
    """Return the key files; refuse an empty name or list, which must not mean: trust everyone."""
    if any(not key.strip() for key in keys) or (not keys and TRUSTED_KEYS in os.environ):
        raise click.BadParameter(
            f"a trusted key has no name; name a key file, or unset {TRUSTED_KEYS} to accept "
            "bundles from anyone",
            context,
            parameter,
        )
    return tuple(map(Path, keys))


def warn(line: str) -> None:
    """Print one line for the user on stderr."""
    click.echo(f"gruard: {line}", err=True)


trusted_key_option = click.option(
    "--trusted-key",
    "trusted_keys",
    multiple=True,
    type=click.Path(),
    envvar=TRUSTED_KEYS,
    callback=_named_keys,
    metavar="FILE.pub",
    help=f"Only accept bundles signed by this key; may be repeated. {TRUSTED_KEYS}, a list "
    "separated by colons, does the same for every command.",
)


def kernel_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose the kernel, as one argument `kernel` of `command`."""

    @click.option(
        "--kernel",
        type=click.Choice((*INT8_KERNELS, CORE_KERNEL_ID)),
        help="Kernel that runs the model. core-c, the C core, gives the bits of tflite-builtin, "
        "the reference.  [default: core-c, or tflite-builtin where the core cannot run]",
    )
    @click.option(
        "--delegate",
        metavar="LIBRARY",
        help="Run the model on an accelerator, e.g. libedgetpu.so.1 for a Coral.",
    )
    @click.option(
        "--delegate-model",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The bundle's model.tflite, compiled for the accelerator.",
    )
    @functools.wraps(command)
    def with_kernel(
        kernel: str | None, delegate: str | None, delegate_model: Path | None, **others: Any
    ) -> None:
        command(kernel=_chosen(kernel, delegate, delegate_model), **others)

    return with_kernel


def _chosen(kernel: str | None, delegate: str | None, compiled: Path | None) -> Kernel | None:
    if delegate is None:
        if compiled is not None:
            raise click.UsageError("--delegate-model needs --delegate.")
        return kernel
    if kernel is not None:
        raise click.UsageError("--delegate is a kernel of its own; leave out --kernel.")
    return Delegate(delegate, compiled)


Item = TypeVar("Item")


def with_progress(items: Iterable[Item], length: int, quiet: bool = False) -> Iterator[Item]:
    """Yield `items`, `length` in all, with a progress bar on a terminal unless `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, length=length, file=sys.stderr) as bar:
        yield from bar
