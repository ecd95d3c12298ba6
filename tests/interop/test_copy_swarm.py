"""Many copies at once, and a target that dies under them: the right result or the right error.

The small form is part of `make test`; `make test-long` runs the same with more data.
"""

import filecmp
import threading
import time

import pytest

from serverfree.initiator.copy import CopyManager
from serverfree.initiator.copy_plan import Endpoint, choose_designator
from serverfree.initiator.unit import Unit
from serverfree.initiator.urls import open_session
from serverfree.initiator.xcopy import CopyFailed, xcopy
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.sense import Asc, SenseKey
from support import servers
from support.process import footprint, settles

pytestmark = [pytest.mark.served, pytest.mark.timeout(600)]

MIB = 1 << 20
BLOCK = 512
SEGMENT = 0x8000  # blocks
SESSIONS, COPIES_EACH = 4, 16  # 64 in all: what a mover says it takes
MOST_MEMORY = 150 * MIB
LEFT_OVER = 8  # threads and files that may come and go


def mover_url(mover):
    return next(iter(mover.units.values())).url


def named(url):
    session, lun = open_session(url)
    with session:
        designators = Unit(session.unit(lun)).identification().designators
    return Endpoint(choose_designator(designators), DeviceType.DISK, 0, BLOCK).cscd(pad=False)


class Watch(threading.Thread):
    """The most memory that processes held while it runs."""

    def __init__(self, *pids):
        super().__init__(daemon=True)
        self.pids = pids
        self.most = 0
        self._end = threading.Event()

    def run(self):
        while not self._end.wait(0.02):
            self.most = max(self.most, *(footprint(pid).memory for pid in self.pids))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self.join()


@pytest.mark.parametrize(
    "each", [MIB, pytest.param(32 * MIB, marks=pytest.mark.long)], ids=["small", "large"]
)
def test_sixty_four_copies_at_once(tmp_path, each):
    """All of them under way before the first is waited for; memory stays within its bound."""
    count = SESSIONS * COPIES_EACH
    size = count * each
    source = servers.random_file(tmp_path / "source.img", size)
    disks = ("--disk", f"source={source}", "--disk", f"copy={tmp_path / 'copy.img'},size={size}")
    with servers.target(*disks) as storage, servers.datamover(storage) as mover:
        cscds = [named(storage["source"].url), named(storage["copy"].url)]
        units = [open_session(mover_url(mover)) for _ in range(SESSIONS)]
        managers = [CopyManager(session.unit(lun)) for session, lun in units]
        before = footprint(mover.pid)
        with Watch(mover.pid) as watch:
            pending = []
            for number in range(count):
                # In reverse: where the data lies says nothing of when it is copied.
                at = (count - 1 - number) * each // BLOCK
                copy = CopyList(
                    cscds,
                    [
                        BlockToBlock(
                            0, 1, min(0x8000, each // BLOCK - begin), at + begin, at + begin
                        )
                        for begin in range(0, each // BLOCK, 0x8000)
                    ],
                    b"",
                    number // SESSIONS + 1,
                    ListIdUsage.DISCARD,
                )
                pending.append(managers[number % SESSIONS].start(copy))
            for one in pending:
                one.wait().check()
        assert filecmp.cmp(tmp_path / "copy.img", source, shallow=False)
        assert watch.most < MOST_MEMORY
        for session, _ in units:
            session.close()
        # Sessions for the next copies are kept, thirty-two at most; each has three files.
        assert settles(lambda: footprint(mover.pid).threads <= before.threads + LEFT_OVER)
        assert footprint(mover.pid).files <= before.files + 3 * 32 + LEFT_OVER


class Swarm:
    """Four targets, two movers, eight copies: the disk of each target to disks of two others."""

    def __init__(self, folder, size):
        self.folder, self.size = folder, size
        self.targets = []
        for number in range(4):
            servers.random_file(folder / f"source{number}.img", size)
            disks = [f"source={folder / f'source{number}.img'}"]
            disks += [f"copy{n}={folder / f'copy{number}{n}.img'},size={size}" for n in range(2)]
            iqn = f"iqn.2026-11.com.example:storage{number}"
            arguments = [word for disk in disks for word in ("--disk", disk)]
            self.targets.append(servers.target("--iqn", iqn, *arguments))
        self.movers = []
        # A copy's source target, the place of its destination, and how that is reached.
        self.copies = [(source, (source + 1 + n) % 4, n) for source in range(4) for n in range(2)]

    def __enter__(self):
        for target in self.targets:
            target.start()
        self.movers = [servers.datamover(*self.targets) for _ in range(2)]
        for mover in self.movers:
            mover.start()
        return self

    def __exit__(self, *error):
        for server in (*self.movers, *self.targets):
            if server.alive():
                server.stop()

    def path(self, copy):
        _, destination, n = copy
        return self.folder / f"copy{destination}{n}.img"

    def run(self, copies):
        """Start copies, each in a thread; return what will hold their outcomes, and the threads."""
        outcomes = {}

        def run(number, copy):
            source, destination, n = copy
            try:
                outcomes[copy] = xcopy(
                    mover_url(self.movers[number % 2]),
                    self.targets[source]["source"].url,
                    self.targets[destination][f"copy{n}"].url,
                )
            except Exception as error:
                outcomes[copy] = error

        threads = [threading.Thread(target=run, args=one) for one in enumerate(copies)]
        for thread in threads:
            thread.start()
        return outcomes, threads

    def right(self, copy):
        source = self.folder / f"source{copy[0]}.img"
        return filecmp.cmp(self.path(copy), source, shallow=False)

    def clear(self):
        """Make every destination a hole again."""
        for copy in self.copies:
            with self.path(copy).open("r+b") as file:
                file.truncate(0)
                file.truncate(self.size)

    def begun(self, copy):
        return self.path(copy).stat().st_blocks > 0


@pytest.mark.parametrize(
    "size", [48 * MIB, pytest.param(512 * MIB, marks=pytest.mark.long)], ids=["small", "large"]
)
def test_a_target_dies_under_eight_copies_and_comes_back(tmp_path, size):
    with Swarm(tmp_path, size) as swarm:
        outcomes, threads = swarm.run(swarm.copies)  # sessions are open then, units known
        for thread in threads:
            thread.join()
        assert [error for error in outcomes.values() if isinstance(error, Exception)] == []
        assert all(swarm.right(copy) for copy in swarm.copies)
        swarm.clear()
        before = [footprint(mover.pid) for mover in swarm.movers]

        victim = 2
        outcomes, threads = swarm.run(swarm.copies)
        hit = [copy for copy in swarm.copies if victim in copy[:2]]
        deadline = time.monotonic() + 60
        while not all(swarm.begun(copy) for copy in hit):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        swarm.targets[victim].kill()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        failed = {c: error for c, error in outcomes.items() if isinstance(error, Exception)}
        # Four copies had to do with it; of them those that were not done yet have failed.
        assert failed
        assert set(failed) <= set(hit)
        for error in failed.values():
            assert isinstance(error, CopyFailed)
            assert error.sense.key is SenseKey.COPY_ABORTED
            assert error.sense.asc in (
                Asc.THIRD_PARTY_DEVICE_FAILURE,
                Asc.COPY_TARGET_DEVICE_NOT_REACHABLE,
            )
        assert all(swarm.right(copy) for copy in swarm.copies if copy not in failed)

        swarm.targets[victim].start()
        again, threads = swarm.run(list(failed))
        for thread in threads:
            thread.join(120)
        assert [error for error in again.values() if isinstance(error, Exception)] == []
        assert all(swarm.right(copy) for copy in swarm.copies)
        for mover, then in zip(swarm.movers, before, strict=True):
            assert settles(
                lambda mover=mover, then=then: (
                    footprint(mover.pid).threads <= then.threads + LEFT_OVER
                )
            )
            now = footprint(mover.pid)
            assert now.files <= then.files + LEFT_OVER
            assert now.memory < MOST_MEMORY
