"""The command `gruard` with a fake model, for tests: `fake_gruard.py PLAN run BUNDLE …`.

Everything is real but the bundle, the fallback's arithmetic and the worker, which is
`faulty_worker.py` with PLAN. FAKE_PERIOD in the environment is the bundle's sample period.
"""

import os
import sys
from types import SimpleNamespace

import faulty_worker

from edge_runtime.bundle import reader as bundle
from edge_runtime.columns import NOTHING_SAID
from edge_runtime.commands import main as cli
from edge_runtime.detector import fallback
from edge_runtime.native import engine
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import worker_process


class FakeFallback:
    repaired = 0

    def __init__(self, manifest: object, model_hash: str, on_damage: object) -> None:
        self.model_hash = model_hash

    def stand_at(self, centre: object) -> None:
        pass

    def step(self, sample: Sample) -> Record:
        alarm = faulty_worker.alarming(sample)
        return Record(
            sample.index, sample.time, 3, Flag.FALLBACK, False, 0.5, 1.0, alarm, (), (), (), ""
        )


plan = sys.argv.pop(1)
manifest = SimpleNamespace(
    name="fake",
    version=1,
    period=float(os.environ.get("FAKE_PERIOD", "1")),
    channel_names=("a", "b"),
    channels=tuple(SimpleNamespace(name=name, center=0.0, scale=2.0) for name in "ab"),
    fallback=SimpleNamespace(range=(50.0, 50.0)),
    change=SimpleNamespace(after=5),
    score=SimpleNamespace(memories=(None,)),
    tiers=SimpleNamespace(warmup=faulty_worker.WARMUP),
    thresholds={"fake": SimpleNamespace(clean_days=1000.0)},
    linear=True,
    columns=NOTHING_SAID,
)
bundle.read_bundle = lambda path, *_, **__: SimpleNamespace(
    path=path,
    manifest=manifest,
    model_hash=faulty_worker.MODEL,
    digest=faulty_worker.DIGEST,
    local={},
)
bundle.proof_faults = lambda bundle: []
fallback.Fallback = FakeFallback
engine.NativeFallback = lambda bundle, on_damage: FakeFallback(None, bundle.model_hash, on_damage)
worker_process.worker_command = lambda path, *_: (
    sys.executable,
    faulty_worker.__file__,
    plan,
)
cli.main()
