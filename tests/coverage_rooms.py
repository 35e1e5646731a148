"""Branch coverage by room, from the JSON of coverage.py: the last part of `make coverage`."""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path


def by_room(files: dict[str, dict[str, dict[str, int]]]) -> dict[str, Counter[str]]:
    """Sums of each room's lines and branches; the modules of a package without rooms are one."""
    rooms: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, file in files.items():
        rooms[str(Path(name).parent)].update(file["summary"])
    return rooms


def main(report: Path) -> None:
    """Print a table of all rooms, with the branches that no test takes."""
    rooms = by_room(json.loads(report.read_text())["files"])
    print(f"{'room':<32}{'lines':>8}{'covered':>9}{'branches':>10}{'covered':>9}{'missed':>8}")
    for name, room in sorted(rooms.items()):
        lines = room["covered_lines"] / max(room["num_statements"], 1)
        branches = room["covered_branches"] / max(room["num_branches"], 1)
        print(
            f"{name:<32}{room['num_statements']:>8}{lines:>9.1%}"
            f"{room['num_branches']:>10}{branches:>9.1%}{room['missing_branches']:>8}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
