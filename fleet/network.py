"""Train a network for one asset, and keep it where it is clearly better than its linear detector.

Training, comparison and conversion are those of `python -m train fit` and `python -m convert`.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edge_runtime.bundle.reader import read_manifest
from edge_runtime.errors import GruardError
from edge_runtime.learning.request import Request, read_data
from fleet.results import NETWORK, AssetResult, newest, promised

ONE_CORE = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",  # each core has a worker
    "TF_NUM_INTEROP_THREADS": "1",
}
RUN = "run"  # the run folder, in that of the job


def weigh_network(
    folder: Path, request: Request, version: int, scratch: Path, say: Callable[[str], None]
) -> AssetResult:
    """Return the asset's result with a network, or that of its linear detector, which stays.

    folder: of the asset's results. version: of the bundle with the network, which is written into
    `scratch`. Raises GruardError for data that cannot be read.
    """
    os.environ.update(ONE_CORE)
    from convert.bundle_writer import write_bundle
    from convert.candidates import convert_first_fit
    from train.cell_config import CellConfig
    from train.train_run import train_run
    from train.training_request import Budget, TrainingRequest

    linear = newest(folder, AssetResult)
    if linear is None:
        raise GruardError(f"{folder}: has no result; the linear detector is learned first")
    training = TrainingRequest(
        data=request.data,
        settings=request.settings,
        out=scratch / RUN,
        name=linear.asset,
        model="auto",
    )
    data, sizes = read_data(request), CellConfig(channels=0)
    run = train_run(training, data, sizes, Budget(), say, lambda step, losses: None)
    shutil.rmtree(scratch / RUN)  # with all rows
    weighed = replace(linear, weighed=True, gain=_gain(run.config.selection))
    if not run.config.sizes["gate_layers"]:
        return weighed
    conversion = convert_first_fit(run, version, linear.target, say).conversion
    if conversion is None or conversion.manifest.linear:
        say("the network failed its validation: the linear detector stays")
        return replace(weighed, gain=0.0)
    written = write_bundle(conversion, scratch, force=True)
    kept = replace(
        weighed,
        version=version,
        bundle=f"assets/{linear.asset}/{version}/{written.name}",
        bundle_digest=read_manifest(written)[1],
        model=NETWORK,
        shared=False,
        choice="",
    )
    return promised(kept, conversion.manifest)


def _gain(precisions: Mapping[str, float]) -> float:
    """Return by how much the network finds injected faults better, in average precision."""
    return precisions.get("gated", 0.0) - precisions.get("linear", 0.0)
