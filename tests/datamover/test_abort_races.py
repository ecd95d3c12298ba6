"""Copies begun, watched, aborted, reset and forgotten from many threads at once: none is lost."""

import random
import threading

import pytest

from serverfree.datamover.buffers import BufferPool
from serverfree.datamover.manager import LIMITS, CopyManager
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.errors import CheckCondition
from support.copies import named, noise
from support.fake_devices import FakeDisk

STATUS, DATA, FAILURE, STATUS4, DATA4 = 0, 1, 4, 5, 6
CSCDS = [IdentificationCscd(named(number), BlockParameters(512), 0) for number in (0, 1)]
SOURCE = noise(512 * 8)


class Fresh:
    """New disks at each opening, which count how many are open."""

    def __init__(self) -> None:
        self.opened: list[FakeDisk] = []

    def open(self, designator, nexus=None) -> FakeDisk:
        self.opened.append(FakeDisk(SOURCE, most=1))
        return self.opened[-1]


def refused(call, *arguments, **options) -> tuple[int, int] | None:
    try:
        call(*arguments, **options)
    except CheckCondition as error:
        return int(error.sense.key), int(error.sense.asc)
    return None


# What each call may be answered; everything else is a fault of ours.
BEGUN = {None, (5, 0x0016), (5, 0x2600), (5, 0x5503), (0x0A, 0x2F02)}
ASKED = {None, (5, 0x2400)}


@pytest.mark.parametrize("rounds", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_whatever_meets_whatever(rounds: int) -> None:
    units = Fresh()
    # Memory for a few of them, so that some wait for it when they are aborted.
    manager = CopyManager(units, pool=BufferPool(40 << 20))
    wrong: list[tuple] = []

    def note(what: str, answer, allowed) -> None:
        if answer not in allowed:
            wrong.append((what, answer))

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(rounds):
            nexus, identifier = chance.choice("ab"), chance.randrange(3)
            match chance.randrange(8):
                case 0 | 1 | 2:
                    lid4 = chance.random() < 0.7
                    copy = CopyList(
                        CSCDS,
                        [BlockToBlock(0, 1, 8, 0, 0)] * chance.randrange(4),
                        b"",
                        identifier,
                        chance.choice([ListIdUsage.HOLD, ListIdUsage.DISCARD]),
                        chance.randrange(8),
                        lid4=lid4,
                        immediate=lid4 and chance.random() < 0.7,
                    )
                    begin = manager.extended_copy
                    answer = refused(begin, nexus, copy.pack(), lambda: False, lid4=lid4)
                    note("begin", answer, BEGUN)
                case 3 | 4:
                    abort = manager.copy_operation_abort
                    note("abort", refused(abort, nexus, identifier, lambda: False), ASKED)
                case 5 | 6:
                    action = chance.choice([STATUS, DATA, FAILURE, STATUS4, DATA4])
                    room = chance.choice([0, 4, 1 << 16])
                    ask = manager.receive_copy_results
                    note(f"ask {action}", refused(ask, nexus, action, identifier, room), ASKED)
                case _:
                    if chance.random() < 0.5:
                        manager.forget(nexus)
                    else:
                        manager.reset()

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    assert not wrong
    for copy in list(manager._copies._running):
        assert copy.ended.wait(20)
    # Every place is free, all memory is back, every unit was handed back and none is broken.
    assert manager._copies._running == []
    assert not manager._precedence.mixed
    with manager._pool.reserve(40 << 20, lambda: True) as memory:
        assert memory == 40 << 20
    assert all(disk.closed == [False] for disk in units.opened)
    for number in range(LIMITS.maximum_concurrent_copies + 1):
        raw = CopyList(CSCDS, [BlockToBlock(0, 1, 8, 0, 0)], b"", number).pack()
        manager.extended_copy("c", raw, lambda: False)
