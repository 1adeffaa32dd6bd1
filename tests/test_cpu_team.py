"""Threads that work together: what is whose, waiting for one another, and what happens when one fails."""

import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from gpuprop.backends import threads
from gpuprop.backends.cpu.ops import compiled_loops
from gpuprop.backends.threads import ThreadChoice

if compiled_loops() is None:
    pytest.skip("compiled code is what waits", allow_module_level=True)

from gpuprop.backends.cpu.compiling import compiled
from gpuprop.backends.cpu.team import Team, meet, share, team_of, together


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


class Machine:
    """A clock, and how long an update takes by each number of threads; it forgets what was measured before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n_threads: int) -> None:
        self.now = 1000.0
        self.most: list[int] = []  # updates that each call might have made
        monkeypatch.setattr(threads, "_measured", {})
        monkeypatch.setattr(threads, "allowed_threads", lambda: n_threads)
        for clock in ("perf_counter", "monotonic"):
            monkeypatch.setattr(f"gpuprop.backends.threads.time.{clock}", lambda: self.now)

    def asked(self, choice: ThreadChoice, seconds: dict[int, float], calls: int) -> list[int]:
        """Return the numbers of threads for so many calls of at most ten updates."""
        asked = []
        for _ in range(calls):
            n_threads, most = choice.following()
            asked.append(n_threads)
            self.most.append(most)
            with choice.timed(min(most, 10)):
                self.now += seconds[n_threads] * min(most, 10)
        return asked


@pytest.mark.parametrize(("two", "expected"), [(0.006, 2), (0.011, 1), (0.01, 1)])
def test_the_faster_number_of_threads_is_kept(two: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 2)
    asked = machine.asked(ThreadChoice(40_000_000), {1: 0.01, 2: two}, 9)
    assert asked == [1, 1, 2, 1, 2, 1, 2, expected, expected]
    assert machine.most[:7] == [10] * 7  # 400 million products a call
    assert min(machine.most[7:]) > 10**9


def test_some_numbers_up_to_all_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {1: 0.01, 2: 0.006, 4: 0.005, 6: 0.007}
    assert Machine(monkeypatch, 6).asked(ThreadChoice(40_000_000), seconds, 14) == [1, *[1, 2, 4, 6] * 3, 4]


@pytest.mark.parametrize(("products", "rounds"), [(600_000_000, 2), (9_000_000_000, 1)])
def test_of_long_updates_few_are_measured(products: int, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 2)
    asked = machine.asked(ThreadChoice(products), {1: 0.2, 2: 0.1}, 2 + 2 * rounds)
    assert asked == [1, *[1, 2] * rounds, 2]
    assert machine.most[:-1] == [1] * (1 + 2 * rounds)


def test_short_fits_measure_together(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 2)
    fits = [machine.asked(ThreadChoice(40_000_000), {1: 0.01, 2: 0.006}, 4) for _ in range(4)]
    # The first call of each is not counted. 2 has been measured once, then twice, then often enough.
    assert fits == [[1, 1, 2, 1], [2, 1, 2, 1], [2, 1, 2, 2], [2, 2, 2, 2]]


def test_a_hundredth_of_a_long_training_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, choice = Machine(monkeypatch, 2), ThreadChoice(40_000_000)
    assert machine.asked(choice, {1: 0.01, 2: 0.005}, 8)[-1] == 2
    # Another process takes the second processor: after three rounds no measurement from before it is left.
    asked = machine.asked(choice, {1: 0.01, 2: 0.02}, 1000)
    assert asked[:200] == [2] * 200
    assert asked[600:].count(2) in (1, 2)


def test_what_was_measured_serves_further_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, seconds = Machine(monkeypatch, 2), {1: 0.01, 2: 0.006, 3: 0.006}
    machine.asked(ThreadChoice(40_000_000), seconds, 7)
    assert machine.asked(ThreadChoice(40_000_000), seconds, 3) == [2, 2, 2]
    assert machine.asked(ThreadChoice(50_000_000), seconds, 3) == [1, 1, 2]  # of another size
    machine.now += 59.0
    assert machine.asked(ThreadChoice(40_000_000), seconds, 3) == [2, 2, 2]
    machine.now += 61.0  # the machine may be another by now
    assert machine.asked(ThreadChoice(40_000_000), seconds, 7) == [1, 1, 2, 1, 2, 1, 2]
    monkeypatch.setattr(threads, "allowed_threads", lambda: 3)  # more may be used
    assert machine.asked(ThreadChoice(40_000_000), seconds, 4) == [1, 1, 2, 3]


@pytest.mark.parametrize(("products", "allowed"), [(0, 2), (4_000_000, 2), (40_000_000, 1)])
def test_small_updates_and_one_processor_are_not_measured(
    products: int, allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, allowed)
    assert machine.asked(ThreadChoice(products), {1: 0.01}, 9) == [1] * 9
    assert min(machine.most) > 10**9


def test_no_more_threads_than_blas_may_use_or_the_training() -> None:
    with threads.limited_blas(1):
        assert threads.allowed_threads() == 1
        assert ThreadChoice(40_000_000).most == 1
    assert ThreadChoice(40_000_000, 1).most == 1
