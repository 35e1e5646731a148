"""Who is told how a run goes: the service manager, the kernel's watchdog, the next start."""

from collections.abc import Callable, Sequence


class Listener:
    """Hears of a run's life; does nothing unless a subclass says what."""

    def ready(self, status: str) -> None:
        """Samples are answered from now on: the model is loaded or the fallback has taken over."""

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Sample `index` was answered completely, its record is out. Called for nothing else."""

    def stopping(self) -> None:
        """No more samples are answered, for whatever reason."""

    def ended(self) -> None:
        """The run ended in good order. Never called after an error."""


class Listeners(Listener):
    """Several listeners as one, told in the order given."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def ready(self, status: str) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.ready(status)

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.beat(index, status)

    def stopping(self) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.stopping()

    def ended(self) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.ended()
