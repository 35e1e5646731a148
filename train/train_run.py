"""One training from checked data to run folder: scale, fit, write."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_runtime.bundle.manifest import Channel
from edge_runtime.errors import GruardError
from edge_runtime.learning.modes import channels_of, modes_sentence
from edge_runtime.learning.prepare import (
    Rows,
    fingerprint,
    standard_rows,
    unlike_training,
    unread,
)
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.request import Data
from edge_runtime.learning.run import Config, Run, npz_bytes
from edge_runtime.learning.split import split_sentence
from edge_runtime.learning.thinning import fitted_rows, fitted_sentence
from train.cell_config import CellConfig
from train.labelled import labelled_rows
from train.model_choice import TrainingRows, fit_model, hopeless
from train.run_folder import read_run, save_config, save_rows, write_atomically
from train.training_request import Budget, Model, Report, Say, TrainingRequest


def train_run(
    request: TrainingRequest,
    data: Data,
    sizes: CellConfig,
    budget: Budget,
    say: Say,
    report: Report,
) -> Run:
    """Train on `data` as requested and return the finished run.

    `sizes` are those of a network; `sizes.channels` is replaced by the number of channels of the
    data. Progress sentences go to `say`, the losses of every step to `report`.
    """
    dataset, split, settings = data.dataset, data.split, data.settings
    for warning in (*dataset.warnings, *data.strange):
        say(f"warning: {warning}")
    period = data.period
    clean = (*split.train, *split.validate, *split.calibrate)
    watched = sum(not channel.exogenous for channel in settings.channels.values())
    silent = unread(split.train)
    obstacle = hopeless(sum(r.rows for r in clean), watched, silent)
    model: Model = "linear" if request.model == "auto" and obstacle else request.model
    if model != "linear" and silent:
        raise GruardError(
            f"{dataset.recordings[0].name}: channel '{silent[0]}' has no reading in the rows to "
            "train on; record it for longer, or train with --model linear"
        )

    def described(rows: Sequence[Recording]) -> tuple[Channel, ...]:
        return channels_of(rows, settings, period)

    # Cross-fitting needs no held-out rows: a linear model is scaled and fitted on all clean rows.
    channels = described(clean if model == "linear" else split.train)
    _make_folder(request.out)
    say(split_sentence(split, len(channels), period))
    if modes := modes_sentence(channels):
        say(modes)
    if model != request.model:
        say(f"{obstacle}: training the linear detector")
    for sentence in unlike_training(split, channels):
        say(f"warning: {sentence}")
    if request.force:
        for name in ("checkpoint.npz", "weights.npz"):
            (request.out / name).unlink(missing_ok=True)
    save_rows(request.out, split)

    values = [recording.values for recording in clean]
    fitted_values = fitted_rows(values)
    if model == "linear":
        rows_told = fitted_sentence(*(sum(map(len, each)) for each in (fitted_values, values)))
        say(f"the linear detector is fitted to {rows_told}")

    def training_rows(channels: tuple[Channel, ...], network: bool) -> TrainingRows:
        def standard(recordings: Sequence[Recording]) -> Rows:
            used = recordings if network else ()
            return standard_rows([r.values for r in used], channels, period)

        return TrainingRows(
            train=standard(split.train),
            validate=standard(split.validate),
            calibrate=standard(split.calibrate),
            linear=standard_rows(fitted_values, channels, period),
            exogenous=np.array([c.exogenous for c in channels]),
            labelled=labelled_rows(split.labelled if network else (), channels, period),
        )

    sizes = replace(sizes, channels=len(channels))
    rows = training_rows(channels, network=model != "linear")
    fitted = fit_model(model, rows, sizes, budget, request.out, say, report)
    if model == "auto" and fitted.sizes.linear:
        # Scale and fit on all clean rows, as for --model linear.
        channels = described(clean)
        rows = training_rows(channels, network=False)
        linear = fit_model("linear", rows, sizes, budget, request.out, say, report)
        fitted = replace(linear, precisions=fitted.precisions)
    config = Config(
        name=request.name,
        period=period,
        channels=channels,
        sizes=fitted.sizes.to_dict(),
        seed=budget.seed,
        data_sha256=fingerprint(dataset.recordings),
        selection=fitted.precisions,
        taught=len(rows.labelled.labels) if fitted.sizes.gate_layers else 0,
        strange=data.strange,
        columns=data.columns,
    )
    save_config(request.out, config)
    # The weights are written last: their presence marks the run as finished.
    write_atomically(request.out / "weights.npz", npz_bytes(dict(fitted.weights)))
    (request.out / "checkpoint.npz").unlink(missing_ok=True)
    return read_run(request.out)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GruardError(
            f"{path}: cannot be created ({error.strerror}); choose another --out"
        ) from None
