"""The power goes at every operation of the journal, and every byte that may be lost is lost."""

from collections.abc import Iterator
from itertools import islice

import pytest

from edge_runtime.journal.journal import Cursor, furthest_cursor
from edge_runtime.journal.segments import Segments, entries_after
from tests.apparatus.cut_journal import (
    CAPACITY,
    ENTRIES,
    FRAMES,
    READER,
    Story,
    check,
    cuts,
    entry,
    live,
)
from tests.apparatus.forgetful_disk import PowerCutDisk, PowerCutError
from tests.campaign.fault import NotHeldError


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
def test_what_is_found_after_a_power_cut_is_a_part_from_the_start_with_all_that_was_synced(
    every: int,
) -> None:
    count = 0
    for disk, story in islice(cuts(ENTRIES), 0, None, every):
        for found in disk.aftermaths():
            check(found, story)
            count += 1
    assert count > 5_000 / every


def test_a_run_after_a_power_cut_goes_on_and_no_number_comes_back() -> None:
    for disk, story in cuts(4 * FRAMES):
        for found in disk.aftermaths():
            start = max(Segments(found, CAPACITY).newest, furthest_cursor(found))
            assert start >= story.kept
            segments = Segments(found, CAPACITY)
            segments.append(entry(start + 1))
            segments.append(entry(start + 2))
            segments.close()
            position = Cursor(found, READER).found or 0
            assert list(entries_after(found, position))[-2:] == [entry(start + 1), entry(start + 2)]
            assert [e.sequence for e in entries_after(found, 0)][-1] == start + 2


def test_a_second_cut_while_a_torn_tail_is_cut_off() -> None:
    disk, story = PowerCutDisk(), Story()
    live(disk, story, 7)
    file = disk.names[f"{7:020}.journal"]
    file.data = file.synced = file.data + b"\xabGJ1 torn"
    for left in range(4):
        again = PowerCutDisk(
            left, names={n: type(i)(i.data, i.data) for n, i in disk.names.items()}
        )
        with pytest.raises(PowerCutError):
            Segments(again, CAPACITY).append(entry(8))
        for found in again.aftermaths():
            assert [e.sequence for e in entries_after(found, 0)] == [*range(1, 8)]


@pytest.mark.parametrize("lies", ["sync", "sync_names"])
def test_a_disk_that_does_not_sync_is_found_out(lies: str) -> None:
    def failures() -> Iterator[NotHeldError]:
        for disk, story in cuts(4 * FRAMES, lies):
            for found in disk.aftermaths():
                try:
                    check(found, story)
                except NotHeldError as error:
                    yield error

    assert next(failures(), None)
