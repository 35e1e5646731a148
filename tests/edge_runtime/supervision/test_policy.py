"""The policy alone, with a clock that is a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.supervision import policy
from edge_runtime.supervision.policy import BACK_OFF, WorkerPhase, WorkerPolicy


def serving(fresh: bool = True) -> WorkerPolicy:
    worker = WorkerPolicy()
    worker.started()
    worker.ready(0.0, fresh)
    return worker


def restart(worker: WorkerPolicy, now: float) -> None:
    worker.failed(now)
    worker.started()
    worker.ready(now, fresh=False)


def test_the_first_start_is_due_at_once_and_is_no_restart() -> None:
    worker = WorkerPolicy()
    assert worker.start_due(-5.0) and not worker.asking
    worker.started()
    assert worker.phase is WorkerPhase.LOADING and worker.restarts == 0
    worker.ready(-5.0, fresh=True)
    assert worker.phase is WorkerPhase.SERVING and worker.asking


def test_three_misses_in_ten_are_too_many() -> None:
    worker = serving()
    assert not worker.missed() and not worker.missed()
    for _ in range(7):
        worker.answered()
    assert worker.missed()  # the tenth


def test_three_misses_in_eleven_are_borne() -> None:
    worker = serving()
    assert not worker.missed() and not worker.missed()
    for _ in range(8):
        worker.answered()
    assert not worker.missed()


def test_misses_of_the_old_worker_are_not_the_new_ones() -> None:
    worker = serving()
    worker.missed()
    worker.missed()
    restart(worker, 10.0)
    assert not worker.missed()


def test_restarts_back_off_and_never_end() -> None:
    worker = serving()
    now = 100.0
    for wait in (*policy.BACK_OFF, *[policy.BACK_OFF[-1]] * 3):
        worker.failed(now)
        assert worker.start_due(now + wait)
        assert wait == 0 or not worker.start_due(now + wait - 0.01)
        now += wait
        worker.started()
    assert worker.restarts == worker.failures == len(policy.BACK_OFF) + 3


@pytest.mark.parametrize(("served", "failures"), [(0.0, 4), (policy.HEALTHY_SERVICE, 1)])
def test_healthy_service_resets_the_back_off(served: float, failures: int) -> None:
    worker = serving()
    for now in (0.0, 10.0, 20.0):
        restart(worker, now)
    worker.ready(100.0, fresh=True)
    worker.failed(100.0 + served)
    assert worker.failures == failures


def test_a_restarted_worker_proves_itself_by_settled_agreement() -> None:
    worker = serving(fresh=False)
    for _ in range(50):
        assert not worker.shadowed(1.0, settled=False, agrees=True)
    for _ in range(policy.AGREEING - 1):
        assert not worker.shadowed(1.0, settled=True, agrees=True)
    assert worker.shadowed(1.0, settled=True, agrees=True)
    assert worker.phase is WorkerPhase.SERVING


def test_a_lasting_disagreement_does_not_keep_the_model_out() -> None:
    worker = serving(fresh=False)
    answers = [worker.shadowed(1.0, True, agrees=False) for _ in range(policy.SHADOW_LIMIT)]
    assert answers.index(True) == policy.SHADOW_LIMIT - 1


def test_a_single_disagreement_starts_the_count_again() -> None:
    worker = serving(fresh=False)
    answers = [worker.shadowed(1.0, True, agrees=i != 30) for i in range(policy.SHADOW_LIMIT)]
    assert answers.index(True) == 31 + policy.AGREEING - 1


def test_a_fourth_return_within_an_hour_has_to_wait() -> None:
    worker = serving()
    for now in (0.0, 700.0, 1400.0, 2100.0):
        restart(worker, now)
        answers = [worker.shadowed(now, True, True) for _ in range(policy.AGREEING)]
        assert answers[-1] is (now < 2100.0)
    assert worker.phase is WorkerPhase.SHADOWING
    assert worker.shadowed(policy.RETURN_WINDOW + 1.0, True, True)


EVENTS = ["start", "ready", "answered", "missed", "failed", "shadowed", "disagreed"]


def play(events: list[tuple[str, float]]) -> tuple[list[float], list[float]]:
    """Feed legal events only; the times of restarts and of returns."""
    worker, now = WorkerPolicy(), 0.0
    restarts: list[float] = []
    returns: list[float] = []
    for event, wait in events:
        now += wait
        before, phase = worker.restarts, worker.phase
        if event == "start" and worker.start_due(now):
            worker.started()
        elif event == "ready" and phase is WorkerPhase.LOADING:
            worker.ready(now, fresh=False)
        elif event == "failed" and phase is not WorkerPhase.WAITING:
            worker.failed(now)
        elif phase is WorkerPhase.SHADOWING:
            for _ in range(policy.AGREEING):
                if worker.shadowed(now, True, event == "shadowed"):
                    returns.append(now)
                    break
        elif event == "missed" and worker.asking and worker.missed():
            worker.failed(now)
        restarts += [now] * (worker.restarts - before)
    return restarts, returns


def most_within(times: list[float], window: float) -> int:
    return max((sum(0 <= t - s <= window for t in times) for s in times), default=0)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from([0.0, 1.0, 6.0, 250.0]))))
def test_budgets_hold_whatever_happens(events: list[tuple[str, float]]) -> None:
    restarts, returns = play(events)
    assert most_within(restarts, policy.HEALTHY_SERVICE) <= len(policy.BACK_OFF)
    assert most_within(returns, policy.RETURN_WINDOW) <= policy.RETURNS


def test_the_budget_check_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "BACK_OFF", (0.0,))
    restarts, _ = play([("start", 0.0), ("failed", 2.0), ("start", 6.0)] * 10)
    assert most_within(restarts, 600.0) > len(BACK_OFF)
