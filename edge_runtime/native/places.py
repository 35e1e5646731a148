"""Where each value of the graph lies in the arena, so that as little as possible is copied.

A part that a SLICE cuts out lies within the whole, and what is joined by a CONCATENATION is written
right where the joined value lies; only what is joined a second time has to be copied.
"""

from collections.abc import Collection

from edge_runtime.bundle.flatbuffer import GraphOperator, GraphSummary
from edge_runtime.native.arena import Life, place


class Places:
    """`at` of the values of `graph`; loaded: constant rows, which are in the arena from the start.

    absent: constants that are not in the arena. size: bytes of the arena.
    """

    def __init__(
        self, graph: GraphSummary, loaded: Collection[int], absent: Collection[int]
    ) -> None:
        self._graph, self._absent = graph, absent
        self._from_start = {*graph.inputs.values(), *loaded}
        self._home = {
            t.index: (t.index, 0) for t in graph.tensors
        }  # another value, and where in it
        for operator in graph.operators:
            if operator.name == "SLICE":
                begin = graph.tensors[operator.inputs[1]].integers[1]
                self._move(operator.outputs[0], operator.inputs[0], begin)
        for operator in graph.operators:
            if operator.name == "CONCATENATION":
                self._join(operator)
        self._placed, self.size = place(self._lives())

    def at(self, index: int) -> int:
        """Where the value of tensor `index` begins, in bytes."""
        whole, offset = self._whole(index)
        return self._placed[whole] + offset

    def all(self) -> dict[int, int]:
        """`at` of every value that lies in the arena."""
        return {t.index: self.at(t.index) for t in self._graph.tensors if self._lies(t.index)}

    def _move(self, index: int, whole: int, offset: int) -> None:
        self._home[index] = (whole, offset)

    def _join(self, operator: GraphOperator) -> None:
        offset, joined = 0, operator.outputs[0]
        for index in operator.inputs:
            if self._home[index] == (index, 0):  # it has no other place yet
                self._move(index, joined, offset)
            offset += self._graph.tensors[index].shape[1]

    def _whole(self, index: int) -> tuple[int, int]:
        """The value that has a place of its own around `index`, and where `index` is in it."""
        home, offset = self._home[index]
        if home == index:
            return index, 0
        whole, further = self._whole(home)
        return whole, offset + further

    def _lies(self, index: int) -> bool:
        return index not in self._absent

    def _lives(self) -> dict[int, Life]:
        lives: dict[int, Life] = {}
        for index in filter(self._lies, self._home):
            whole, _ = self._whole(index)
            size = self._graph.tensors[whole].shape[1]
            first = self._written(index)
            last = max(first, self._last_use(index))
            known = lives.get(whole, Life(size, first, last))
            lives[whole] = Life(size, min(known.first, first), max(known.last, last))
        return lives

    def _written(self, index: int) -> int:
        if index in self._from_start:
            return 0
        return next((i for i, o in enumerate(self._graph.operators) if index in o.outputs), 0)

    def _last_use(self, index: int) -> int:
        """The operator that reads it last; the host reads the graph's outputs after all of them."""
        if index in self._graph.outputs.values():
            return len(self._graph.operators)
        return max((i for i, o in enumerate(self._graph.operators) if index in o.inputs), default=0)
