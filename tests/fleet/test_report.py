"""The report of thousands of assets: each is there, and reasons that are alike are one line."""

from html.parser import HTMLParser

from fleet.progress import FleetProgress, duration
from fleet.report import report_page
from fleet.results import FAILED, VERDICTS, AssetResult, AssetScore


class Tags(HTMLParser):
    """Counts the tags of a page, and collects its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self._pieces: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_data(self, data: str) -> None:
        self._pieces.append(data)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


def learned(number: int, verdict: str = "trial", reason: str = "few <rows>") -> AssetResult:
    good = verdict not in FAILED
    return AssetResult(
        f"pump-{number}", verdict, reason, bundle=f"assets/pump-{number}" if good else "",
        threshold=10.0 + number % 7, rows=1000, days_needed=3.0, cpu_seconds=2.0, target=1.0,
    )  # fmt: skip


def test_a_page_of_four_thousand_assets_has_each_of_them_and_few_reasons() -> None:
    rows = [learned(n) for n in range(3000)]
    rows += [learned(n, "bad input", f"/data/pump-{n}.csv line {n}: no number") for n in range(900)]
    rows += [learned(n, "too slow", "took longer than 60 s") for n in range(100)]
    page = report_page(rows, 3600.0)
    found = Tags(page)
    assert found.count["rect"] >= 4000 and len(page) < 3_000_000
    first = found.text.split("To look at first")[1].split("How they are spread")[0]
    assert first.count("bad input") == 1 and "900" in first and "and 892 more" in first
    assert first.count("too slow") == 1 and "100" in first
    assert "<rows>" not in page, "text of recordings is escaped"
    text = found.text
    assert all(f"pump-{n}" in text for n in (0, 1234, 2999))


def test_a_threshold_far_above_the_others_is_looked_at_first() -> None:
    page = report_page([*(learned(n, "assured") for n in range(9)),
                        AssetResult("odd", "assured", "", threshold=99.0)], 1.0)  # fmt: skip
    line = next(line for line in page.splitlines() if "times the median" in line)
    assert "odd" in line and "pump" not in line


def test_the_assets_longest_in_alarm_come_first() -> None:
    rows = [
        AssetScore(f"a{n}", "alarms", "", alarms=1, share=n / 100, first=5) for n in range(1, 40)
    ]
    text = Tags(report_page(rows, 1.0)).text
    first = text.split("To look at first")[1].split("How they are spread")[0]
    assert first.index("39.0%") < first.index("38.0%") and "a1," not in first


def test_one_asset_and_every_verdict_have_a_page() -> None:
    for verdict in VERDICTS:
        for row in (learned(1, verdict), AssetScore("a", verdict, "")):
            assert f"1 {verdict}" in Tags(report_page([row], 1.0)).text
    assert "0 assets" in report_page([], 1.0)


def test_progress_says_how_long_the_rest_takes() -> None:
    now, said = [0.0], []
    progress = FleetProgress(100, said.append, lambda: now[0])
    said.append(progress.begins(2))
    for number in range(100):
        now[0] += 6.0
        progress.ended(learned(number, "bad input" if number == 0 else "trial"))
    assert said[0] == "100 assets on 2 cores"
    assert said[1] == "2 of 100 assets, 1 failed, about 10 min left"
    assert said[-1] == "100 of 100 assets, 1 failed"
    assert [duration(s) for s in (89, 90, 7200)] == ["89 s", "2 min", "2.0 h"]
