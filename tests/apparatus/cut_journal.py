"""Power cuts at every operation of the journal, with every possible loss of unsynced bytes."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from edge_runtime.journal.frames import OVERHEAD, Entry
from edge_runtime.journal.journal import Cursor
from edge_runtime.journal.segments import SEGMENTS, Segments, entries_after
from tests.apparatus.forgetful_disk import PowerCutDisk, PowerCutError
from tests.campaign.fault import expect

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
    kept: int = 0  # the last position that the cursor stored
    oldest: int = 1


def live(disk: PowerCutDisk, story: Story, entries: int, sync_every: int = 4) -> None:
    """Do a run: append entries one by one, and sync and store the cursor now and then.

    Entries may be sent before they are on the disk, so that alarms are not delayed.
    """
    segments, cursor = Segments(disk, CAPACITY), Cursor(disk, READER)
    for sequence in range(story.appended + 1, story.appended + 1 + entries):
        story.appended = sequence  # from here on it may be on the disk
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
    """Check that the entries are those that were appended, and that no synced entry is missing."""
    found = list(entries_after(disk, 0))
    expect(found == [entry(e.sequence) for e in found], "an entry is not what was appended")
    numbers = [e.sequence for e in found]
    if numbers:
        expect(numbers == list(range(numbers[0], numbers[-1] + 1)), f"a hole in {numbers}")
        expect(story.synced <= numbers[-1] <= story.appended, f"{numbers[-1]} is the last")
        # One segment may just have been dropped.
        expect(numbers[0] <= story.oldest + FRAMES, f"{numbers[0]} is the first")
    expect(bool(numbers) or not story.synced, "what was synced is missing")
    position = Cursor(disk, READER).found or 0
    expect(story.kept <= position <= story.sent, f"the cursor is at {position}")


def cuts(entries: int, lies: str = "") -> Iterator[tuple[PowerCutDisk, Story]]:
    """Yield the disk and the story of a run, cut after each of its operations."""
    whole = PowerCutDisk()
    live(whole, Story(), entries)
    for left in range(whole.done):
        disk, story = PowerCutDisk(left, lies=lies), Story()
        with contextlib.suppress(PowerCutError):
            live(disk, story, entries)
            expect(False, "the power never went")
        yield disk, story
