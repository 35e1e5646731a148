"""From assets to jobs: which types are learned, from whom, and what an asset is told of its own."""

from dataclasses import replace
from pathlib import Path

from fleet.assets import FEWEST_ASSETS, Asset
from fleet.jobs import MOST_ASSETS, Means, RunJobs
from fleet.results import TypeResult
from fleet.task import _digests

MEANS = Means(None, 1, 100.0, 1000)


def assets(count: int, of_type: str = "pump") -> list[Asset]:
    return [
        Asset(f"{of_type}{n}", Path(f"/data/{n}.csv"), None, 2.0 + n, type=of_type)
        for n in range(count)
    ]


def test_a_type_is_learned_from_enough_assets_and_not_from_all(tmp_path: Path) -> None:
    listed = [*assets(2 * MOST_ASSETS), *assets(FEWEST_ASSETS - 1, "fan"), *assets(3, "")]
    listed.append(replace(listed[0], name="bad", problem="no data"))
    ((name, job),) = RunJobs(listed, tmp_path, MEANS).of_types()
    assert name.startswith("type pump-") and job.asset == "pump" and job.kind is TypeResult
    files = [int(Path(member.data).stem) for member in job.members]
    assert len(set(files)) == MOST_ASSETS and max(files) > MOST_ASSETS + 200, (
        "spread over all of them"
    )
    assert job.known_assets == 2 * MOST_ASSETS and job.target == 2.0, "the strictest target"
    assert job.folder == tmp_path / "types" / "pump"
    few = next(job for _, job in RunJobs(assets(7), tmp_path, MEANS).of_types())
    assert {member.data for member in few.members} == {f"/data/{n}.csv" for n in range(7)}


def test_each_asset_is_told_of_its_type(tmp_path: Path) -> None:
    listed = [*assets(1), *assets(1, "fan"), *assets(1, "mill"), *assets(1, "")]
    models = {
        "pump": TypeResult("pump", "assured", "", bundle="types/pump/1/pump-1.gruard"),
        "fan": TypeResult("fan", "bad input", "no channels"),
    }
    jobs = dict(RunJobs(listed, tmp_path, MEANS).of_assets(models))
    found = {job.type: (job.shared, job.choice) for job in jobs.values()}
    assert found == {
        "pump": (str(tmp_path / "types/pump/1/pump-1.gruard"), ""),
        "fan": ("", "own model: its type was not learned: no channels"),
        "mill": ("", "own model: its type has 1 assets, 5 are needed"),
        "": ("", ""),
    }
    assert len(set(jobs)) == 4, "names are unique"


def test_a_type_is_learned_again_when_it_has_grown_by_half(tmp_path: Path) -> None:
    def digest(count: int, target: float = 2.0) -> str:
        listed = [replace(asset, target=target) for asset in assets(count)]
        _, job = next(RunJobs(listed, tmp_path, MEANS).of_types())
        return _digests(job)[1]

    digests = [digest(count) for count in range(10, 101)]
    assert 5 <= len(set(digests)) <= 7, "log(100 / 10) / log(1.5) is 5.7"
    assert digest(10, 1.0) != digest(10)
