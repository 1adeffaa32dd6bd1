"""Threads that work together: what is whose, waiting for one another, and what happens when one fails."""

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from gpuprop.backends import cpu_threads
from gpuprop.backends.cpu_ops import compiled_loops
from gpuprop.backends.cpu_threads import ThreadChoice

if compiled_loops() is None:
    pytest.skip("compiled code is what waits", allow_module_level=True)

from gpuprop.backends.cpu_compile import compiled
from gpuprop.backends.cpu_team import Team, meet, share, team_of, together


@compiled
def rotate(team: Team, values: Any, n_rounds: int) -> None:
    """Each round every thread adds what the one before it had at the end of the last round."""
    mine, other = team.thread, (team.thread + team.n_threads - 1) % team.n_threads
    for _ in range(n_rounds):
        found = values[other * 64]
        meet(team)
        values[mine * 64] += found
        meet(team)


@compiled
def shared(n: int, team: Team) -> tuple[int, int]:
    return share(n, team)  # which Python cannot call


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
def test_nobody_is_ahead_or_behind(n_threads: int) -> None:
    # As many numbers as a circulant matrix gives: one thread a round early or late gives others.
    start, n_rounds = np.arange(1, n_threads + 1), 40
    values = np.zeros(n_threads * 64, np.int64)
    values[::64] = start
    together(lambda team: rotate(team, values, n_rounds), team_of(n_threads))
    step = np.eye(n_threads, dtype=object) + np.roll(np.eye(n_threads, dtype=object), -1, axis=1)
    expected = start.astype(object)
    for _ in range(n_rounds):
        expected = step @ expected
    assert values[::64].tolist() == [int(number) for number in expected]


@pytest.mark.parametrize("n", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_shares_are_all_there_is_and_nothing_twice(n: int, n_threads: int) -> None:
    shares = [shared(n, team) for team in team_of(n_threads)]
    assert [i for begin, end in shares for i in range(begin, end)] == list(range(n))
    sizes = [end - begin for begin, end in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_ends_the_wait_of_the_others_and_is_raised(failing: int) -> None:
    values = np.zeros(3 * 64, np.int64)

    def call(team: Team) -> None:
        if team.thread == failing:
            raise MemoryError("no room")
        rotate(team, values, 3)

    teams, before = team_of(3), threading.active_count()
    with pytest.raises(MemoryError, match="no room"):
        together(call, teams)
    assert threading.active_count() == before
    values[...] = 1
    together(lambda team: rotate(team, values, 3), teams)  # the team works again
    assert values[::64].tolist() == [8, 8, 8]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts how often a thread has slept")
def test_who_waits_long_sleeps() -> None:
    """A thread that waits gives up the processor again and again; one that only looked would not once."""
    import resource  # Windows has none

    slept: list[int] = []

    def call(team: Team) -> None:
        if team.thread == 1:
            time.sleep(0.5)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        rotate(team, np.zeros(128, np.int64), 1)
        if team.thread == 0:
            slept.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)

    rotate(team_of(1)[0], np.zeros(64, np.int64), 1)  # compiled before
    together(call, team_of(2))
    assert slept[0] > 20


# --- which number of threads ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_chosen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "_chosen", {})


def choose(
    choice: ThreadChoice, seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch, calls: int = 9
) -> list[tuple[int, int]]:
    """Make updates that take as long as given for each number of threads; return what was asked for."""
    clock, asked = [0.0], []
    monkeypatch.setattr("gpuprop.backends.cpu_threads.time.perf_counter", lambda: clock[0])
    for _ in range(calls):
        n_threads, most = choice.following()
        asked.append((n_threads, most))
        n_updates = min(most, 1000)
        with choice.timed(n_updates):
            clock[0] += seconds[n_threads] * n_updates
    return asked


@pytest.mark.parametrize(("two", "expected"), [(0.6, 2), (1.1, 1), (1.0, 1)])
def test_the_faster_number_of_threads_is_kept(two: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "allowed_threads", lambda: 2)
    asked = choose(ThreadChoice(40_000_000), {1: 1.0, 2: two}, monkeypatch)
    assert [n for n, _ in asked] == [1, 1, 2, 1, 2, 1, 2, expected, expected]
    assert [most for _, most in asked[:7]] == [10] * 7  # 400 million products a call
    assert asked[-1][1] > 10**9


def test_some_numbers_up_to_all_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "allowed_threads", lambda: 6)
    asked = choose(ThreadChoice(40_000_000), {1: 1.0, 2: 0.6, 4: 0.5, 6: 0.7}, monkeypatch, calls=14)
    assert [n for n, _ in asked] == [1, *[1, 2, 4, 6] * 3, 4]


def test_of_long_updates_few_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "allowed_threads", lambda: 2)
    asked = choose(ThreadChoice(600_000_000), {1: 1.0, 2: 0.6}, monkeypatch, calls=6)
    assert asked[:5] == [(1, 1), (1, 1), (2, 1), (1, 1), (2, 1)]
    assert asked[5][0] == 2
    asked = choose(ThreadChoice(9_000_000_000), {1: 1.0, 2: 1.1}, monkeypatch, calls=4)
    assert [n for n, _ in asked] == [1, 1, 2, 1]


def test_a_choice_serves_further_fits_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_threads, "allowed_threads", lambda: 2)
    now = [1000.0]
    monkeypatch.setattr("gpuprop.backends.cpu_threads.time.monotonic", lambda: now[0])
    choose(ThreadChoice(40_000_000), {1: 1.0, 2: 0.6}, monkeypatch, calls=7)
    now[0] += 59.0
    assert choose(ThreadChoice(40_000_000), {2: 0.6}, monkeypatch, calls=1)[0][0] == 2
    of_another_size = choose(ThreadChoice(50_000_000), {1: 1.0, 2: 0.6}, monkeypatch, calls=3)
    assert [n for n, _ in of_another_size] == [1, 1, 2]
    monkeypatch.setattr(cpu_threads, "allowed_threads", lambda: 3)  # more may be used now
    assert [n for n, _ in choose(ThreadChoice(40_000_000), dict.fromkeys((1, 2, 3), 1.0), monkeypatch, calls=4)] == [
        1, 1, 2, 3
    ]  # fmt: skip
    monkeypatch.setattr(cpu_threads, "allowed_threads", lambda: 2)
    now[0] += 2.0
    assert [n for n, _ in choose(ThreadChoice(40_000_000), {1: 1.0, 2: 0.6}, monkeypatch, calls=3)] == [1, 1, 2]


@pytest.mark.parametrize(("products", "allowed"), [(0, 2), (4_000_000, 2), (40_000_000, 1)])
def test_small_updates_and_one_processor_are_not_measured(
    products: int, allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_threads, "allowed_threads", lambda: allowed)
    asked = choose(ThreadChoice(products), {1: 1.0}, monkeypatch)
    assert {n for n, _ in asked} == {1}
    assert min(most for _, most in asked) > 10**9


def test_no_more_threads_than_blas_may_use() -> None:
    with cpu_threads.limited_blas(1):
        assert cpu_threads.allowed_threads() == 1
