"""The power goes at every operation of the journal, and every byte that may be lost is lost."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from forgetful_disk import PowerCutDisk, PowerCutError

from edge_runtime.journal.cursor import Cursor, furthest_cursor
from edge_runtime.journal.frames import OVERHEAD, Entry
from edge_runtime.journal.segments import SEGMENTS, Segments, entries_after

READER = "mqtt://broker:1883/pump"
FRAMES = 3  # in a segment
CAPACITY = SEGMENTS * FRAMES * (OVERHEAD + 4)
ENTRIES = 40 * FRAMES  # so that the oldest segments give way


def entry(sequence: int) -> Entry:
    return Entry(sequence, b"%04d" % sequence)


@dataclass
class Story:
    """What a run did before the power went."""

    appended: int = 0
    synced: int = 0
    sent: int = 0
    kept: int = 0  # the cursor's last word that was waited for
    oldest: int = 1


def live(disk: PowerCutDisk, story: Story, entries: int, sync_every: int = 4) -> None:
    """A run: entries one by one, synced now and then, sent at once, the cursor kept now and then.

    What is sent may not be on the disk yet: that is how alarms are in time.
    """
    segments, cursor = Segments(disk, CAPACITY), Cursor(disk, READER)
    for sequence in range(story.appended + 1, story.appended + 1 + entries):
        story.appended = sequence  # from here on it may be found
        segments.append(entry(sequence))
        story.oldest = segments.oldest
        if sequence % sync_every == 0:
            segments.sync()
            story.synced = sequence
        if sequence % 5 == 0:
            story.sent = sequence
            cursor.keep(sequence)
            story.kept = sequence
    segments.close()
    story.synced = story.appended


def check(disk: PowerCutDisk, story: Story) -> None:
    """What is found is what was appended, without a hole, and nothing synced is missing."""
    found = list(entries_after(disk, 0))
    assert found == [entry(e.sequence) for e in found]
    numbers = [e.sequence for e in found]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else not story.synced
    if numbers:
        assert story.synced <= numbers[-1] <= story.appended
        assert numbers[0] <= story.oldest + FRAMES  # one segment was just being dropped
    position = Cursor(disk, READER).found or 0
    assert story.kept <= position <= story.sent


def cuts(entries: int, lies: str = "") -> Iterator[tuple[PowerCutDisk, Story]]:
    """The disk and the story of a run cut short after each of its operations."""
    whole = PowerCutDisk()
    live(whole, Story(), entries)
    for left in range(whole.done):
        disk, story = PowerCutDisk(left, lies=lies), Story()
        with pytest.raises(PowerCutError):
            live(disk, story, entries)
        yield disk, story


def test_what_is_found_after_a_power_cut_is_a_part_from_the_start_with_all_that_was_synced() -> (
    None
):
    count = 0
    for disk, story in cuts(ENTRIES):
        for found in disk.aftermaths():
            check(found, story)
            count += 1
    assert count > 5_000


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
    def failures() -> Iterator[AssertionError]:
        for disk, story in cuts(4 * FRAMES, lies):
            for found in disk.aftermaths():
                try:
                    check(found, story)
                except AssertionError as error:
                    yield error

    assert next(failures(), None)
