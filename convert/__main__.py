"""`python -m convert`: convert a run folder into a bundle with its proof."""

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import false_alarms_option
from edge_runtime.errors import GruardError
from train.console import run_command

FOLDER = click.Path(path_type=Path)


class DefaultGroup(click.Group):
    """A group with the default command `bundle`: `python -m convert RUN` means `… bundle RUN`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command unless the first word is a command or asks for help."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["bundle", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Convert a trained run into an int8 bundle, with its proof.

    \b
    python -m convert runs/pump                     RUN/bundle/pump-1.gruard
    python -m convert validate pump-1.gruard        judge a bundle again
    python -m convert audit pump-1.gruard           the contents of the graph
    python -m convert keygen plant                  a key pair: plant.key, plant.pub
    python -m convert sign pump-1.gruard --key plant.key
    python -m convert timeline day.jsonl --data day.csv --out day-report

    The word bundle is optional: python -m convert RUN is python -m convert bundle RUN.
    """


@cli.command()
@click.argument("run", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder for the bundle.  [default: RUN/bundle]")
@click.option(
    "--version",
    default=1,
    show_default=True,
    type=ranges.VERSION,
    help="Version of the bundle; devices refuse an older one.",
)
@false_alarms_option
@click.option(
    "--force", is_flag=True, help="Replace an existing bundle, and write a failed one (marked)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def bundle(
    run: Path, out: Path | None, version: int, wish: float, force: bool, as_json: bool
) -> None:
    """Quantise RUN to int8, calibrate its threshold, validate it and write the bundle.

    If a network fails its validation, it is tried without its gate, then the linear detector of the
    same rows. The first that passes is written, and the output and the report say why.

    \b
    Exit code 0: one passed. 1: none passed, and nothing was written unless --force was given (the
    first, marked). 2: bad input.
    """
    from train.run_folder import read_run

    trained = read_run(run)
    folder = out or run / "bundle"
    from convert.bundle_writer import write_bundle
    from convert.candidates import convert_first_fit
    from convert.report.facts import advice, choice_facts, choice_text
    from edge_runtime.learning.bundle_writer import (
        bundle_path,
        refuse_existing,
        refuse_unwritable,
    )

    target = bundle_path(folder, trained.config.name, version)
    refuse_existing(target, force)
    refuse_unwritable(target)
    choice = convert_first_fit(trained, version, wish, _say, force)
    written = write_bundle(choice.conversion, folder, force) if choice.conversion else None
    if as_json:
        click.echo(json.dumps({**choice_facts(choice), "bundle": str(written or "")}))
    else:
        click.echo(choice_text(choice))
        click.echo(f"passed: {written}" if choice.passed else _failed(written, advice(choice)))
    sys.exit(0 if choice.passed else 1)


@cli.command()
@click.argument("bundle", type=FOLDER)
@click.option("--run", type=FOLDER, help="Run folder of the bundle.  [default: two folders up]")
@click.option("--data", type=FOLDER, help="CSV to judge on, instead of the rows of the run.")
@click.option("--long", is_flag=True, help="Free rollout of 100,000 steps instead of 4,000.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def validate(bundle: Path, run: Path | None, data: Path | None, long: bool, as_json: bool) -> None:
    """Judge BUNDLE again: its int8 model against the float model of its run.

    Without the run folder, a recording (--data) still shows whether this machine computes the
    golden bits, and whether a clean recording has more alarms than the target.

    \b
    Exit code 0: passed, 1: failed, 2: bad input.
    Example: python -m convert validate pump-1.gruard --run runs/pump --data may.csv
    """
    from convert.report.facts import verdict_text
    from convert.revalidate import revalidate

    judged = revalidate(bundle, run, data, long)
    if as_json:
        others = [verdict.to_dict() for verdict in judged.others]
        facts = {**judged.verdict.to_dict(), "passed": judged.passed, "other_kernels": others}
        click.echo(json.dumps(facts))
    else:
        for verdict in (judged.verdict, *judged.others):
            click.echo(f"on {verdict.kernel}:")
            click.echo(verdict_text(verdict))
        click.echo("passed" if judged.passed else "FAILED")
    sys.exit(0 if judged.passed else 1)


@cli.command()
@click.argument("model", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def audit(model: Path, as_json: bool) -> None:
    """List the operators of MODEL (a .tflite file or a bundle), and the targets that can run it.

    Each operator with its operands: type, shape, scale and zero-point, bytes of constants. Then
    totals, and a verdict for TFLite int8, TensorFlow Lite Micro (which runs the model if its
    interpreter is installed) and Edge TPU (by its documented constraints only).

    \b
    Exit code 0: an int8 gruard step, or a linear bundle, which has none; 1: something else, 2: bad
    input.
    Example: python -m convert audit pump-1.gruard
    """
    from convert.audit.operators import audit as audit_of
    from convert.audit.targets import audit_text, verdicts
    from edge_runtime.bundle.flatbuffer import read_graph
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.files import open_input

    if model.is_dir() and read_bundle(model, allow_failed=True).manifest.linear:
        note = "linear: nothing is quantised, everything is host arithmetic"
        click.echo(json.dumps({"linear": True, "verdicts": []}) if as_json else note)
        return
    file = model / "model.tflite" if model.is_dir() else model
    try:
        with open_input(file, "name a bundle or a .tflite file") as stream:
            data = stream.read()
    except OSError as error:
        raise GruardError(f"{file}: cannot be read ({error.strerror})") from None
    graph = read_graph(data, str(file))
    facts = audit_of(data, graph)
    targets = verdicts(data, graph, facts)
    if as_json:
        results = [result.to_dict() for result in targets]
        click.echo(json.dumps({**facts.to_dict(), "verdicts": results}))
    else:
        click.echo(audit_text(facts, targets))
    sys.exit(0 if targets[0].passed else 1)


@cli.command()
@click.argument("name", type=FOLDER)
def keygen(name: Path) -> None:
    """Make a key pair for signing bundles: NAME.key, which is secret, and NAME.pub.

    Do not copy NAME.key to a device, and keep a backup of it.

    Example: python -m convert keygen ~/.gruard/plant
    """
    from convert.signing import generate_keys

    private, public = generate_keys(name)
    click.echo(f"secret, for signing:  {private}")
    click.echo(f"for every device:     {public}  (gruard run … --trusted-key {public.name})")


@cli.command()
@click.argument("bundle", type=FOLDER)
@click.option("--key", required=True, type=FOLDER, help="The secret key that keygen made.")
def sign(bundle: Path, key: Path) -> None:
    """Sign BUNDLE, for devices that accept only signed bundles; replaces an existing signature.

    A bundle that a device would refuse is not signed. The signature is the 64 bytes of Ed25519 over
    manifest.json, in manifest.sig; openssl can check it, too.

    \b
    Exit code 0: signed, 2: bad input.
    Example: python -m convert sign pump-1.gruard --key ~/.gruard/plant.key
    """
    from convert.signing import sign_bundle

    click.echo(f"signed: {sign_bundle(bundle, key)}")


@cli.command()
@click.argument("records", type=FOLDER)
@click.option("--data", required=True, type=FOLDER, help="The watched CSV; labels are used.")
@click.option("--out", required=True, type=FOLDER, help="Folder for timeline.png and report.html.")
@click.option("--bundle", type=FOLDER, help="Bundle of the run, for channel order and units.")
def timeline(records: Path, data: Path, out: Path, bundle: Path | None) -> None:
    """Draw the timeline of a run: RECORDS are the JSON lines of gruard run --sink.

    \b
    Exit code 0: both files were written, 2: bad input.
    Example: python -m convert timeline day.jsonl --data day.csv --out day-report
    """
    from convert.timeline.timeline import write_timeline

    done = write_timeline(records, data, out, bundle)
    click.echo(done.headline)
    click.echo(f"wrote {done.report} and {done.picture}")


def _say(sentence: str) -> None:
    click.echo(f"… {sentence}", err=True)


def _failed(written: Path | None, remedy: str) -> str:
    if written:
        return f"FAILED, written anyway and marked: {written}"
    return f"FAILED: no bundle was written; {remedy}"


def main() -> NoReturn:
    """Run the command line."""
    # TensorFlow reads this when it is imported, which only some commands do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run_command(cli, "convert", "interrupted; nothing was written")


if __name__ == "__main__":
    main()
