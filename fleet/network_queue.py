"""Which asset gets a network next: of the design whose networks have gained the most so far.

Assets of one design have the same channels. The first networks of a design are its probe: if none
of them is kept, the design gets no more.
"""

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from edge_runtime.look.facts import FEWEST_NETWORK_ROWS
from fleet.results import NETWORK, AssetResult

PROBES = 3
"""Networks without a gain, after which a design gets no more."""


def may_pay(row: AssetResult) -> bool:
    """Whether an asset has the rows and channels without which no network is better."""
    return row.rows >= FEWEST_NETWORK_ROWS and row.channels > 1


class NetworkQueue:
    """The assets that may get a network, best expected gain first.

    The expected gain of a design is the mean of what its networks have gained, with the mean of the
    whole fleet as one more. A network that was not kept has gained nothing. Of equal designs the
    one with the most assets is first.

    rows: results of assets, in their order. One that has been weighed already counts as a probe.
    """

    def __init__(self, rows: Iterable[AssetResult]) -> None:
        self._waiting: dict[str, list[AssetResult]] = defaultdict(list)
        self._gains: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if row.weighed:
                self.ended(row)
            else:
                self._waiting[row.design].append(row)

    def ended(self, row: AssetResult) -> None:
        """Count what became of the network of an asset."""
        self._gains[row.design].append(row.gain if row.model == NETWORK else 0.0)

    def take(self) -> AssetResult | None:
        """Remove the next asset and return it; None if no network is expected to pay."""
        designs = [design for design, rows in self._waiting.items() if rows and self._pays(design)]
        if not designs:
            return None
        best = max(designs, key=lambda design: (self._expected(design), len(self._waiting[design])))
        return self._waiting[best].pop(0)

    def _pays(self, design: str) -> bool:
        return len(self._gains[design]) < PROBES or any(self._gains[design])

    def _expected(self, design: str) -> float:
        everywhere = [gain for gains in self._gains.values() for gain in gains]
        prior = fmean(everywhere) if everywhere else 1.0
        return fmean([prior, *self._gains[design]])
