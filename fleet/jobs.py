"""From a list of assets to the jobs of a run: first the types that they share, then the assets."""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from edge_runtime import __version__
from fleet.assets import FEWEST_ASSETS, Asset
from fleet.job import Job, TypeMember
from fleet.results import TypeResult

MOST_ASSETS = 300  # of a type, to learn from; more would only take time


@dataclass(frozen=True)
class Means:
    """What a run may use.

    scheduler: an address, None for a cluster on this machine with so many `workers`, None for one
    for each core. seconds, megabytes: the limits of each asset, wall-clock time and memory.
    network_seconds: in which networks may begin, after all linear detectors.
    """

    scheduler: str | None
    workers: int | None
    seconds: float
    megabytes: int
    network_seconds: float = 0.0


class RunJobs:
    """The named jobs of one run over `assets`, with results in `folder`. Names are unique.

    proof: whether bundles are proven, not made or used.
    """

    def __init__(
        self, assets: Sequence[Asset], folder: Path, means: Means, proof: bool = False
    ) -> None:
        self._assets = [asset for asset in assets if not asset.problem]
        self._folder, self._means = folder.absolute(), means
        self._run, self._proof = secrets.token_hex(4), proof

    def of_types(self) -> Iterator[tuple[str, Job]]:
        """Yield a job for each type with enough assets to learn from."""
        for name, assets in self._types().items():
            if len(assets) < FEWEST_ASSETS:
                continue
            # In an order of chance, since the first ones may be enough.
            chosen = sorted(assets, key=lambda asset: sha256(asset.name.encode()).digest())
            chosen = chosen[:MOST_ASSETS]
            members = tuple(TypeMember(_absolute(a.data), _absolute(a.settings)) for a in chosen)
            target = min(asset.target for asset in assets)
            job = self._job(name, target, members=members, known_assets=len(assets))
            yield f"type {name}-{self._run}", job

    def of_assets(self, models: Mapping[str, TypeResult]) -> Iterator[tuple[str, Job]]:
        """Yield a job for each usable asset. models: results of `of_types` by name."""
        return self._of_assets(self._assets, models, network=False)

    def of_networks(
        self, names: Iterable[str], models: Mapping[str, TypeResult]
    ) -> Iterator[tuple[str, Job]]:
        """Yield a job for the network of each asset with one of `names`, which are asked late."""
        assets = {asset.name: asset for asset in self._assets}
        return self._of_assets((assets[name] for name in names), models, network=True)

    def _of_assets(
        self, assets: Iterable[Asset], models: Mapping[str, TypeResult], network: bool
    ) -> Iterator[tuple[str, Job]]:
        counts = {name: len(assets) for name, assets in self._types().items()}
        for asset in assets:
            model, choice = models.get(asset.type), ""
            if asset.type and model is None:
                known = counts[asset.type]
                choice = f"own model: its type has {known} assets, {FEWEST_ASSETS} are needed"
            elif model is not None and not model.good:
                choice = f"own model: its type was not learned: {model.reason}"
            job = self._job(
                asset.name,
                asset.target,
                data=_absolute(asset.data),
                settings=_absolute(asset.settings),
                model=asset.model,
                bundle=_absolute(asset.bundle),
                type=asset.type,
                shared=str(self._folder / model.bundle) if model and model.good else "",
                choice=choice,
                network=network,
            )
            yield f"{'network ' * network}{asset.name}-{self._run}", job

    def _types(self) -> dict[str, list[Asset]]:
        types = defaultdict(list)
        for asset in self._assets:
            if asset.type:
                types[asset.type].append(asset)
        return types

    def _job(self, name: str, target: float, **of_it: object) -> Job:
        known = {"data": "", "settings": "", "model": "linear", "bundle": "", **of_it}
        return Job(
            asset=name,
            target=target,
            fleet=str(self._folder),
            run=self._run,
            gruard=__version__,
            seconds=self._means.seconds,
            megabytes=self._means.megabytes,
            proof=self._proof,
            **known,  # type: ignore[arg-type]
        )


def _absolute(path: Path | None) -> str:
    return str(path.absolute()) if path else ""
