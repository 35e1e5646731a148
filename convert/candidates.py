"""The models that may ship of a run, the largest first; the first that passes its verdict ships.

If a network fails, the same network without its gate is tried, then the linear detector on the rows
of the run. Neither needs another training.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from convert.convert_run import Conversion, Say, assessed, completed
from convert.proof import Outcome, choice_of
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.errors import UnfitError
from edge_runtime.learning.linear import fit_linear
from edge_runtime.learning.modes import with_modes
from edge_runtime.learning.prepare import scaled, standard_rows
from edge_runtime.learning.run import Run
from edge_runtime.learning.streams import clean_rows
from edge_runtime.learning.thinning import fitted_rows
from train.cell_config import CellConfig, without_unused


@dataclass(frozen=True)
class Choice:
    """The result of each candidate that was judged, and the conversion to write.

    conversion: None where no candidate passed and none was forced.
    """

    outcomes: tuple[Outcome, ...]
    conversion: Conversion | None

    @property
    def passed(self) -> bool:
        """Whether a candidate passed, which is the last that was judged."""
        return self.outcomes[-1].passed

    @property
    def sentence(self) -> str:
        """Why this candidate ships instead of a larger one, or why none ships."""
        return choice_of(self.outcomes)


def convert_first_fit(
    run: Run, version: int, wished_per_day: float, say: Say, force: bool = False
) -> Choice:
    """Judge the candidates of `run` in turn and convert the first that passes.

    force: if none passes, convert the first that could be judged. Raises UnfitError when none
    could be judged.
    """
    outcomes: list[Outcome] = []
    failed = None
    for candidate in candidates(run):
        name = name_of(candidate)
        if outcomes:
            say(f"{outcomes[-1].sentence}; now the {name}")
        try:
            assessment = assessed(candidate, version, wished_per_day, say)
        except UnfitError as error:
            outcomes.append(Outcome(name, refusal=str(error)))
            continue
        outcomes.append(Outcome(name, assessment.verdict.without_evidence))
        if assessment.verdict.passed:
            return Choice(tuple(outcomes), completed(assessment, say, tuple(outcomes)))
        failed = failed or assessment
    if failed is None:
        raise UnfitError(outcomes[-1].refusal)
    forced = completed(failed, say, tuple(outcomes)) if force else None
    return Choice(tuple(outcomes), forced)


def candidates(run: Run) -> Iterator[Run]:
    """Yield `run` as trained, without its gate, and as a linear detector, as far as they differ.

    All have the digest of the trained weights.
    """
    sizes = _sizes(run)
    yield run
    if sizes.gate_layers and sizes.gru_layers:
        yield ungated(run)
    if not sizes.linear:
        yield linear(run)


def candidate_of(run: Run, manifest: Manifest) -> Run:
    """Return the candidate of `run` that a bundle with `manifest` was converted from."""
    for candidate in candidates(run):
        sizes = _sizes(candidate)
        parts = ("correction", sizes.gru_layers), ("logit", sizes.gate_layers)
        if all((name in manifest.outputs) == (layers > 0) for name, layers in parts):
            return candidate
    raise UnfitError(f"{run.path}: holds no model of the kind that the bundle is")


def name_of(run: Run) -> str:
    """Return the name of the model of `run` in reports."""
    sizes = _sizes(run)
    if sizes.linear:
        return "linear detector"
    return "gated network" if sizes.gate_layers else "network without a gate"


def ungated(run: Run) -> Run:
    """Return the network of `run` without its gate: the same weights, every reading trusted."""
    sizes = replace(_sizes(run), gate_layers=0)
    config = replace(run.config, sizes=sizes.to_dict(), taught=0)
    return replace(run, config=config, weights=without_unused(run.weights, sizes))


def linear(run: Run) -> Run:
    """Fit the linear detector as training does: scaled and fitted on all clean rows."""
    config, rows = run.config, clean_rows(run)
    channels = with_modes(scaled(config.channels, rows), rows, config.period)
    sizes = replace(_sizes(run), gru_layers=0, gate_layers=0)
    standard = standard_rows(fitted_rows(rows), channels, config.period)
    return replace(
        run,
        config=replace(config, channels=channels, sizes=sizes.to_dict(), taught=0),
        weights=fit_linear(standard, sizes.order, sizes.highway),
    )


def _sizes(run: Run) -> CellConfig:
    return CellConfig(**run.config.sizes)
