"""How many flipped bits of a model's weights does the self-test notice?

    python -m benchmarks.golden runs/watch/bundle/watch-1.gruard [--flips 400]

The hashes are not checked, because a bit may flip in memory after that check. A flip that is not
noticed changes no answer of the replay.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np

from benchmarks.pages import markdown
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.errors import GruardError

Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Noticed:
    """Flips of one kind. low, high: 95 % interval of the share (Wilson 1927)."""

    kind: str
    flips: int
    noticed: int

    @property
    def interval(self) -> tuple[float, float]:
        """Within which the true share lies."""
        n, share = self.flips, self.noticed / self.flips
        centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
        reach = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        return max(centre - reach, 0.0), min(centre + reach, 1.0)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--flips", default=400, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(bundle: Path, flips: int, seed: int, as_json: bool) -> None:
    """Flip single bits of BUNDLE's weights and count how many its self-test notices."""
    loaded = read_bundle(bundle, allow_failed=True)
    if loaded.manifest.linear:
        raise click.UsageError(f"{bundle}: a linear model has no weights in a file")
    found = measure(loaded, flips, seed)
    click.echo(json.dumps([asdict(each) for each in found]) if as_json else table(found))


def measure(bundle: Bundle, flips: int, seed: int) -> list[Noticed]:
    """Random flips, by the place of the bit in its byte."""
    spots = weight_bytes(bundle.model)
    rng = np.random.default_rng(seed)
    places, bits = rng.choice(spots, flips), rng.integers(0, 8, flips)
    pairs = zip(places.tolist(), bits.tolist(), strict=True)
    seen = np.array([notices(bundle, place, bit) for place, bit in pairs])
    groups = {"all": bits >= 0, "highest bit": bits == 7, "lowest bit": bits == 0}
    return [
        Noticed(kind, int(chosen.sum()), int(seen[chosen].sum()))
        for kind, chosen in groups.items()
        if chosen.any()
    ]


def weight_bytes(model: bytes) -> np.ndarray:
    """Positions in the file of every byte of a constant."""
    from tensorflow.lite.python import schema_py_generated as schema

    parsed = schema.Model.GetRootAs(model)
    graph, places = parsed.Subgraphs(0), []
    for number in range(graph.TensorsLength()):
        buffer = parsed.Buffers(graph.Tensors(number).Buffer())
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            places.append(np.arange(start, start + buffer.DataLength()))
    return np.concatenate(places)


def table(found: Sequence[Noticed]) -> str:
    """A line for each kind of flip."""
    lines = []
    for each in found:
        low, high = each.interval
        share = f"{each.noticed / each.flips:.1%} ({low:.1%}–{high:.1%})"
        lines.append([each.kind, f"{each.flips}", f"{each.noticed}", share])
    return markdown(["flipped", "flips", "noticed", "share, 95 % interval"], lines)


def notices(bundle: Bundle, place: int, bit: int) -> bool:
    """Whether the self-test refuses the model with `bit` of the byte at `place` flipped."""
    from edge_runtime.detector.detector import Detector

    model = bytearray(bundle.model)
    model[place] ^= 1 << bit
    try:
        Detector(replace(bundle, model=bytes(model))).self_test()
    except GruardError:
        return True
    return False


if __name__ == "__main__":
    main()
