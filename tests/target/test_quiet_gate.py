"""The quiet gate, by a clock that only the test moves: nothing here sleeps but the last tests."""

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import pytest

from serverfree.target.backstore.quiet import Cancelled, NotQuiet, QuietGate, Quietness


class Time:
    """A clock, and a way to sleep on it: what is to happen at a time happens when it is passed."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, after: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (1000.0 + after, len(self._events), happens))

    def clock(self) -> float:
        return self.now

    def pause(self, cancelled: Event, seconds: float) -> bool:
        self.pauses.append(seconds)
        end = self.now + seconds
        while self._events and self._events[0][0] <= end and not cancelled.is_set():
            self.now, _, happens = heapq.heappop(self._events)
            happens()
        if not cancelled.is_set():
            self.now = end
        return cancelled.is_set()

    @property
    def passed(self) -> float:
        return self.now - 1000.0


@pytest.fixture
def world() -> Time:
    return Time()


@pytest.fixture
def gate(world: Time) -> QuietGate:
    return QuietGate(world.clock, world.pause)


def change(gate: QuietGate) -> None:
    gate.enter()
    gate.leave()


def test_a_disk_that_never_changed_passes_at_once(gate, world):
    gate.wait(3, 80)
    assert world.pauses == []


@pytest.mark.parametrize(("before", "waits"), [(2.999, 0.001), (3.0, 0.0), (100.0, 0.0)])
def test_only_what_is_missing_of_the_period_is_waited_for(gate, world, before, waits):
    change(gate)
    world.now += before
    gate.wait(3, 80)
    assert world.now - 1000 - before == pytest.approx(waits, abs=1e-9)
    assert bool(world.pauses) is (waits > 0)


def test_a_change_sets_the_period_back(gate, world):
    change(gate)
    world.at(2.999, lambda: change(gate))
    gate.wait(3, 80)
    assert world.passed == pytest.approx(5.999)
    assert len(world.pauses) == 2


def test_a_change_at_the_very_end_of_the_period_is_seen(gate, world):
    change(gate)
    world.at(3.0, lambda: change(gate))
    gate.wait(3, 80)
    assert world.passed == pytest.approx(6.0)


def test_it_fails_at_the_time_out_exactly_and_says_what_happened(gate, world):
    for second in range(100):
        world.at(second + 0.5, lambda: change(gate))
    change(gate)
    with pytest.raises(NotQuiet) as failed:
        gate.wait(3, 80)
    assert world.passed == 80
    error = failed.value
    assert (error.asked, error.waited, error.timeout) == (3, 80, 80)
    assert error.last_change_age == pytest.approx(0.5)


@pytest.mark.parametrize(("last", "passes"), [(77.0, True), (77.001, False)])
def test_a_period_that_ends_with_the_time_out_is_in_time(gate, world, last, passes):
    change(gate)
    for tenth in range(int(last)):
        world.at(tenth, lambda: change(gate))
    world.at(last, lambda: change(gate))
    if passes:
        gate.wait(3, 80)
    else:
        with pytest.raises(NotQuiet):
            gate.wait(3, 80)
    assert world.passed == 80


def test_a_thread_that_is_woken_late_decides_as_if_it_had_been_in_time(world):
    def sleeps_too_long(cancelled: Event, seconds: float) -> bool:
        return world.pause(cancelled, seconds + 30)

    gate = QuietGate(world.clock, sleeps_too_long)
    change(gate)
    world.at(1, lambda: change(gate))
    gate.wait(3, 5)  # quiet at 4
    world.now += 1
    change(gate)
    world.at(world.passed + 3, lambda: change(gate))
    with pytest.raises(NotQuiet):  # quiet 6 seconds after it began
        gate.wait(3, 5)


def test_a_storm_of_changes_wakes_no_one(gate, world):
    """A waiter looks about once a period, however many changes there are."""
    change(gate)
    for number in range(30_000):
        world.at(number / 1000, lambda: change(gate))
    gate.wait(3, 80)
    assert world.passed == pytest.approx(32.999, abs=1e-6)
    assert len(world.pauses) <= 2 * 33 / 3


def test_a_change_that_goes_on_is_no_quiet(gate, world):
    world.now += 50
    gate.enter()
    world.at(60, gate.leave)
    gate.wait(3, 80)
    assert world.passed == pytest.approx(63)


def test_a_change_that_never_ends_is_the_time_out(gate, world):
    gate.enter()
    with pytest.raises(NotQuiet) as failed:
        gate.wait(3, 80)
    assert world.passed == 80
    assert failed.value.last_change_age == 0


def test_whoever_waits_can_be_told_to_stop(gate, world):
    cancelled = Event()
    change(gate)
    world.at(1, cancelled.set)
    with pytest.raises(Cancelled):
        gate.wait(3, 80, cancelled)
    assert world.passed == 1
    gate.wait(0, 80)  # the lock is free


def test_progress_tells_how_long_it_is_quiet_already(gate, world):
    seen: list[Quietness] = []
    change(gate)
    gate.wait(3, 80, progress=seen.append)
    assert [state.last_change_age for state in seen] == [number / 4 for number in range(12)]
    assert {(state.asked, state.timeout) for state in seen} == {(3, 80)}
    assert world.passed == 3


def test_a_failure_of_who_watches_leaves_the_gate_usable(gate, world):
    change(gate)
    with pytest.raises(ZeroDivisionError):
        gate.wait(3, 80, progress=lambda state: 1 / 0)  # type: ignore[arg-type, return-value]
    change(gate)
    gate.wait(3, 80)


def test_several_wait_at_once_and_each_for_its_own_period():
    """In real time: the last change and the periods say when each passes."""
    gate = QuietGate()
    change(gate)
    began = time.monotonic()
    passed: dict[float, float] = {}

    def wait(quiet: float) -> None:
        gate.wait(quiet, 5)
        passed[quiet] = time.monotonic() - gate.last_change

    threads = [threading.Thread(target=wait, args=(quiet,)) for quiet in (0.1, 0.2, 0.3, 0.3)]
    for thread in threads:
        thread.start()
    while time.monotonic() < began + 0.15:
        time.sleep(0.01)
    change(gate)
    for thread in threads:
        thread.join(5)
    assert set(passed) == {0.1, 0.2, 0.3}
    for quiet, after in passed.items():
        assert after >= quiet or quiet == 0.1  # which had passed before that change


@contextmanager
def writers(gate: QuietGate, count: int) -> Iterator[list[int]]:
    """Threads that change all the time; how many are at it is in the list."""
    at_it = [0] * count
    stop = Event()

    def work(index: int) -> None:
        while not stop.is_set():
            gate.enter()
            at_it[index] = 1
            time.sleep(0.0005)
            at_it[index] = 0
            gate.leave()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield at_it
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)


def test_without_a_period_changes_are_let_end_and_none_begins_meanwhile():
    gate = QuietGate()
    with writers(gate, 4) as at_it:
        for _ in range(50):
            with gate.held(0, 80):
                assert not any(at_it)
                time.sleep(0.0002)
                assert not any(at_it)


def test_no_change_is_missed_between_the_period_and_what_follows():
    """Whoever holds the gate has a last change that is as old as was asked for."""
    gate = QuietGate()
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            change(gate)
            time.sleep(0.004)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            with gate.held(0.003, 5):
                last = gate.last_change
                assert time.monotonic() - last >= 0.003
                time.sleep(0.001)
                assert gate.last_change == last
    finally:
        stop.set()
        thread.join(5)
