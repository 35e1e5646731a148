"""Sinks whose records wait, in memory or in a journal, for who sends them."""

from collections.abc import Sequence

from edge_runtime.journal.backlog import Backlog
from edge_runtime.journal.journal import Journal
from edge_runtime.record import Record
from edge_runtime.sinks.message import Wanted, message
from edge_runtime.sinks.posting import Posting
from edge_runtime.threads import WatchedThread


class Outbox:
    """Records wait in memory; the oldest give way. Only those that `wanted` wants get in."""

    def __init__(self, run: str, wanted: Wanted, backlog: Backlog, posting: Posting) -> None:
        self._run, self._wanted = run, wanted
        self._backlog, self._posting = backlog, posting
        backlog.wake_on_append(posting.wake)
        posting.start()

    @property
    def dropped(self) -> int:
        """Records that the receiver did not confirm; exact after `close`."""
        return self._posting.dropped

    @property
    def skipped(self) -> int:
        """Records that no carrier could take."""
        return self._posting.skipped

    @property
    def threads(self) -> Sequence[WatchedThread]:
        """Who sends, and who keeps the connection."""
        return self._posting.threads

    def write(self, record: Record) -> None:
        """Put one record where it waits."""
        text = message(self._run, record)
        if self._wanted(text):
            self._backlog.append(text)

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        self._posting.close()


class JournalSink:
    """All records go into the journal, and from there to everyone who sends them."""

    def __init__(self, run: str, journal: Journal, postings: Sequence[Posting]) -> None:
        self._run, self._journal, self._postings = run, journal, tuple(postings)
        for posting in self._postings:
            journal.wake_on_append(posting.wake)
            posting.start()

    @property
    def dropped(self) -> int:
        """Records missing on the disk, and those that gave way unsent; exact after `close`."""
        return self._journal.dropped + sum(posting.dropped for posting in self._postings)

    @property
    def skipped(self) -> int:
        """Entries that were not understood, or that no carrier could take."""
        return sum(posting.skipped for posting in self._postings)

    @property
    def threads(self) -> Sequence[WatchedThread]:
        """Who writes, who sends, and who keeps the connections."""
        sending = (thread for posting in self._postings for thread in posting.threads)
        return self._journal.thread, *sending

    def write(self, record: Record) -> None:
        """Put one record into the journal."""
        self._journal.append(message(self._run, record))

    def close(self) -> None:
        """Send what waits, for some seconds at most; what is left is sent by the next run."""
        for posting in self._postings:
            posting.close()
        self._journal.close()
