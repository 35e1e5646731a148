"""Lines become records, or are named as what they are; one bad line costs no other."""

import json
import math

import pytest
from device_records import stream, text
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
from fleet.ingest.batches import LONGEST_LINE, parse, why_no_record, without_run
from fleet.ingest.totals import AssetTotals, Tally, read_totals, write_totals

GOOD = text(stream([False, True] * 20)).splitlines()
FIELDS = json.loads(GOOD[0])
BAD = (
    b"", b"\xff\xfe", b"null", b"[1]", b"{}", b"{", GOOD[0][:-1], GOOD[0] + GOOD[1], b"\0" * 9,
    b'{"index":1}', b"{" + b"[" * 50_000 + b"}", b"{" + b" " * LONGEST_LINE + b"}",
    GOOD[0].replace(b'"index":0', b'"index":-1'), GOOD[0].replace(b'"index":0', b'"index":1.5'),
    GOOD[0].replace(b'"index":0', b'"index":1e30'), GOOD[0].replace(b'"tier":3', b'"tier":4'),
    GOOD[0].replace(b'"alarm":false', b'"alarm":null'), GOOD[0].replace(b'"WARMUP"', b"null"),
    GOOD[0].replace(b'"WARMUP"', b'"\\u0007"'), GOOD[0].replace(b'"score":', b'"score":NaN,"x":'),
    GOOD[0].replace(b'"score":', b'"score":1e999,"x":'), GOOD[0].replace(b'"time":', b'"time":"x'),
    GOOD[0].replace(b'"model":"', b'"model":"\xff'), GOOD[0].replace(b'"model":"', b'"model":"\\n'),
)  # fmt: skip


@given(st.lists(st.sampled_from(GOOD + list(BAD)), max_size=60))
@settings(deadline=None, max_examples=60)
def test_exactly_the_records_are_taken(lines: list[bytes]) -> None:
    batch, places = parse(lines)
    assert places == [place for place, line in enumerate(lines) if line in BAD]
    kept = [json.loads(line) for line in lines if line not in BAD]
    assert batch.column("index").tolist() == [each["index"] for each in kept]
    assert batch.column("score").tolist() == [each["score"] for each in kept]
    assert batch.column("alarm").tolist() == [each["alarm"] for each in kept]
    assert batch.table["imputed"].to_pylist() == [each["imputed"] for each in kept]


@pytest.mark.parametrize("line", [line for line in BAD if line])
def test_a_bad_line_is_described_in_one_line(line: bytes) -> None:
    assert parse([line])[1] == [0]
    why = why_no_record(line)
    assert len(why) < 200 and why.isprintable()


@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "run", "slots"]),
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
            st.lists(st.text(max_size=3), max_size=3), st.sampled_from([10**15, 10**9, 1e300]),
        ),
    )
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_whatever_is_taken_can_be_kept(tmp_path_factory, fields: dict) -> None:
    folder = tmp_path_factory.mktemp("kept")
    batch, places = parse([json.dumps(FIELDS | fields).encode(), GOOD[1]])
    assert len(batch) + len(places) == 2
    tally = Tally(AssetTotals("pump"))
    tally.add(batch)
    write_totals(folder, tally.totals((), 0))
    assert read_totals(folder, "pump") == tally.totals((), 0)


def test_the_field_run_is_left_out_and_nothing_else() -> None:
    record = stream([True])
    assert without_run(text(record, "8c1f0a6be2d4")) == without_run(text(record))
    assert json.loads(without_run(text(record)))["score"] == record[0].score
    assert not math.isnan(record[0].score or math.nan)
