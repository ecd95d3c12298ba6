"""PRIORITY of EXTENDED COPY: who is served in which order, counted (SPC-4 6.4.3.3)."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from serverfree.datamover.buffers import BufferPool
from serverfree.datamover.manager import CopyManager
from serverfree.datamover.precedence import Precedence
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.designator import Designator
from support.copies import named, noise
from support.fake_devices import WRITE_16, FakeDisk


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def never() -> bool:
    return False


# ---------------------------------------------------------------------- memory


class Line:
    """Many that wait for a memory that is enough for one, which has it as long as we like."""

    def __init__(self, pool: BufferPool) -> None:
        self.pool = pool
        self.served: list[int] = []
        self.threads: list[threading.Thread] = []
        self._next = threading.Semaphore(0)

    def add(self, priority: int, size: int = 1, number: int | None = None) -> None:
        before = self.waiting()

        def wait() -> None:
            with self.pool.reserve(size, never, priority) as got:
                assert got == size
                self.served.append(priority if number is None else number)
                self._next.acquire()

        self.threads.append(threading.Thread(target=wait, daemon=True))
        self.threads[-1].start()
        until(lambda: self.waiting() == before + 1)

    def waiting(self) -> int:
        return sum(map(len, self.pool._line))

    def let_go(self, count: int) -> None:
        for number in range(count):
            until(lambda number=number: len(self.served) > number)
            self._next.release()
        for thread in self.threads:
            thread.join(20)


def test_memory_goes_to_the_most_urgent_and_in_the_end_to_everybody() -> None:
    pool = BufferPool(1)
    line = Line(pool)
    wanted = [7, 1, 0, 1, 2] * 6 + [0] * 30  # 0 is sought after most
    with pool.reserve(1, never):
        for priority in wanted:
            line.add(priority)
    line.let_go(len(wanted))
    assert Counter(line.served) == Counter(wanted)
    assert line.served[0] == 0
    # For every two of priority 0 there is one of priority 1, for every four one of priority 2.
    first = Counter(line.served[:28])
    assert first[0] in (16, 17)
    assert first[1] in (7, 8)
    assert first[2] in (3, 4)
    assert first[7] == 0


def test_equally_urgent_ones_are_served_in_order_whatever_they_want() -> None:
    """One that needs all the memory there is does not starve beside those that need little."""
    pool = BufferPool(4)
    line = Line(pool)
    with pool.reserve(4, never):
        for number, size in enumerate((1, 4, 1, 1, 4, 2)):
            line.add(1, size, number)
    line.let_go(6)
    assert line.served[:2] == [0, 1]
    assert set(line.served[2:4]) == {2, 3}
    assert line.served[4:] == [4, 5]


def test_who_gives_up_makes_way() -> None:
    pool = BufferPool(4)
    line = Line(pool)
    stop = threading.Event()
    with pool.reserve(2, never):
        greedy: list[int] = []

        def wait() -> None:
            with pool.reserve(4, stop.is_set) as got:
                greedy.append(got)

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: line.waiting() == 1)
        with_room = threading.Thread(target=lambda: _take(pool, line.served))
        with_room.start()
        until(lambda: line.waiting() == 2)
        stop.set()
        thread.join(20)
        with_room.join(20)
    assert (greedy, line.served) == ([0], [2])


def _take(pool: BufferPool, into: list[int]) -> None:
    with pool.reserve(2, never) as got:
        into.append(got)


# ---------------------------------------------------------------------- steps


class Stepper:
    """A copy that takes steps as fast as it may, until it is stopped."""

    def __init__(self, precedence: Precedence, priority: int) -> None:
        self.steps = 0
        self.stopped = False
        self._precedence, self._priority = precedence, priority
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        until(lambda: bool(precedence._waiting[priority]))

    def _run(self) -> None:
        with self._precedence.member(self._priority, lambda: self.stopped) as turn:
            while not turn():
                self.steps += 1


@pytest.mark.parametrize("less", [1, 2, 3, 7])
def test_a_less_urgent_copy_has_one_step_for_so_many(less: int) -> None:
    precedence = Precedence(quiet=60, clock=lambda: 0.0)
    with precedence.member(0, never) as turn:
        turn()  # alone, it waits for nobody
        with precedence.member(7 if less != 7 else 6, never):
            turn()
            slow = Stepper(precedence, less)
            for rounds in range(1, 4):
                for step in range(2**less):
                    assert slow.steps == rounds - 1, f"{step} of {2**less}"
                    turn()
                until(lambda rounds=rounds: slow.steps == rounds)
                until(lambda: bool(precedence._waiting[less]))
            slow.stopped = True
    slow.thread.join(20)  # nobody more urgent is left
    assert not slow.thread.is_alive()


def test_equally_urgent_copies_take_turns_however_many_they_are() -> None:
    """So the share of the more urgent one does not depend on how many wait for it."""
    precedence = Precedence(quiet=60, clock=lambda: 0.0)
    with precedence.member(1, never) as turn, precedence.member(2, never):
        turn()
        slow = [Stepper(precedence, 2) for _ in range(8)]
        for count in range(1, 17):
            turn()
            turn()
            until(lambda count=count: sum(one.steps for one in slow) == count)
            until(lambda: len(precedence._waiting[2]) == 8)
        assert [one.steps for one in slow] == [2] * 8
        for one in slow:
            one.stopped = True
    for one in slow:
        one.thread.join(20)
        assert not one.thread.is_alive()


def test_a_copy_that_waits_for_its_units_is_not_waited_for() -> None:
    now = [0.0]
    precedence = Precedence(quiet=1, clock=lambda: now[0])
    with precedence.member(0, never) as urgent, precedence.member(5, never) as other:
        urgent()
        now[0] = 1.5
        for _ in range(100):
            assert other() is False
    assert not precedence.mixed


def test_copies_at_a_slow_pace_are_waited_for_as_long_as_they_keep_it() -> None:
    now = [0.0]
    precedence = Precedence(quiet=0.01, longest=60, clock=lambda: now[0])
    with precedence.member(0, never) as urgent, precedence.member(3, never):
        for _ in range(50):  # under load a step takes its time
            now[0] += 0.04
            urgent()
        now[0] += 0.1
        slow = Stepper(precedence, 3)
        slow.stopped = True
    slow.thread.join(20)
    assert not slow.thread.is_alive()


def test_one_of_those_that_wait_goes_on_after_a_while() -> None:
    """A tape that is slow but steady does not keep the disks waiting for each of its blocks."""
    now = [0.0]
    precedence = Precedence(quiet=60, longest=0.01, clock=lambda: now[0])
    with precedence.member(0, never) as urgent, precedence.member(7, never):
        urgent()
        slow = [Stepper(precedence, 7) for _ in range(3)]
        assert sum(one.steps for one in slow) == 0
        for count in range(1, 7):
            now[0] += 0.02
            until(lambda count=count: sum(one.steps for one in slow) == count)
            until(lambda: len(precedence._waiting[7]) == 3)
        assert [one.steps for one in slow] == [2] * 3
        for one in slow:
            one.stopped = True
    for one in slow:
        one.thread.join(20)
        assert not one.thread.is_alive()


def test_who_waits_for_a_turn_hears_of_an_abort() -> None:
    precedence = Precedence(longest=0.001, clock=lambda: 0.0)
    stop = threading.Event()
    asked = itertools.count()

    def aborted() -> bool:
        next(asked)
        return stop.is_set()

    with precedence.member(0, never) as urgent, precedence.member(5, aborted) as other:
        urgent()
        threading.Timer(0.05, stop.set).start()
        assert other() is True
        assert precedence._waiting[5] == type(precedence._waiting[5])()


# ---------------------------------------------------------------------- copies


BLOCKS = 48


class Disks:
    """A disk pair for each copy; who writes is noted. None is opened before all are under way."""

    def __init__(self, copies: int) -> None:
        self.under_way = threading.Barrier(copies)
        self.content = noise(512 * BLOCKS)
        self.written: list[int] = []
        self.copies: list[FakeDisk] = []

    def open(self, designator: Designator, nexus: object = None) -> FakeDisk:
        number = designator.identifier[-1]
        if not number:
            self.under_way.wait(20)
            return FakeDisk(self.content, most=1)
        written = self.written

        class Noted(FakeDisk):
            def transfer(self, cdb, out, into):
                if cdb[0] == WRITE_16:
                    written.append(number)
                return super().transfer(cdb, out, into)

        self.copies.append(Noted(bytes(512 * BLOCKS), most=1))
        return self.copies[-1]


def order_of(priorities: list[int]) -> list[int]:
    """Run copies of these priorities at once; return whose each write is, by its priority."""
    disks = Disks(len(priorities))
    manager = CopyManager(disks, pool=BufferPool(1 << 30))
    manager._precedence = Precedence(quiet=5, longest=5)
    with manager._pool.reserve(1 << 30, never):
        for number, priority in enumerate(priorities, 1):
            cscds = [IdentificationCscd(named(n), BlockParameters(512), 0) for n in (0, number)]
            segments = [BlockToBlock(0, 1, BLOCKS, 0, 0)]
            copy = CopyList(cscds, segments, b"", number, priority=priority, lid4=True)
            copy.immediate = True
            manager.extended_copy("a", copy.pack(), never, lid4=True)
        until(lambda: sum(map(len, manager._pool._line)) == len(priorities))
    for number in range(1, len(priorities) + 1):
        until(lambda n=number: manager.receive_copy_results("a", 5, n, 64)[5] == 1)
    assert len(disks.copies) == len(priorities)
    assert all(one.data == disks.content for one in disks.copies)
    return [priorities[number - 1] for number in disks.written]


def test_of_64_copies_at_once_the_urgent_ones_get_their_commands_out_first() -> None:
    order = order_of([4] * 30 + [0] * 4 + [4] * 30)
    last = len(order) - order[::-1].index(0)
    assert order[:last].count(0) == 4 * BLOCKS
    # They take some two steps for a write; for every 16 steps one of the others has one.
    assert order[:last].count(4) <= 4 * BLOCKS * 3 // 16
    assert Counter(order) == {0: 4 * BLOCKS, 4: 60 * BLOCKS}


def test_copies_without_a_priority_of_their_own_are_all_alike() -> None:
    order = order_of([1] * 8)
    assert Counter(order) == {1: 8 * BLOCKS}
