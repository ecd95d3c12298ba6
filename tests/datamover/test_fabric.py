"""Units found over real sockets: discovery, reuse of sessions, ways that break."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serverfree.datamover.errors import UnitUnreachable
from serverfree.datamover.fabric import NetworkFabric
from serverfree.datamover.manager import CopyManager
from serverfree.initiator.connection import Timing
from serverfree.iscsi.errors import SessionLost
from serverfree.iscsi.names import Portal
from serverfree.scsi.cdb.primary import TestUnitReady
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.designator import Designator, locally_assigned
from serverfree.target.backstore.file import open_file_store
from serverfree.target.server import Server
from serverfree.target.session import Target
from serverfree.target.units.block import BlockUnit

NOWHERE = Portal("192.0.2.1", 3260)  # TEST-NET-1: nobody answers there
SIZE = 1 << 20


class Storage:
    """A server with one target; its disks are named as asked."""

    def __init__(self, folder: Path, name: str, disks: list[str], **options) -> None:
        self.iqn = f"iqn.2026-11.com.example:{name}"
        self.folder = folder
        self.options = options
        self.portal = Portal("127.0.0.1", 0)
        self.start(disks)

    def start(self, disks: list[str]) -> None:
        units = []
        for disk in disks:
            path = self.folder / f"{self.iqn[-4:]}-{disk}.img"
            store = open_file_store(path, size=SIZE)
            units.append(BlockUnit(disk, store, target=self.iqn))
        self.target = Target(self.iqn, units)
        self.server = Server([self.target], [self.portal], **self.options)
        self.portal = self.server.start()[0]
        self.running = True

    def stop(self) -> None:
        if self.running:
            self.running = False
            self.server.stop()

    def path(self, disk: str) -> Path:
        return self.folder / f"{self.iqn[-4:]}-{disk}.img"

    def name(self, disk: str) -> Designator:
        return locally_assigned(self.iqn, disk)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Callable[..., Storage]]:
    made: list[Storage] = []

    def make(name: str, disks: list[str], **options) -> Storage:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Storage(folder, name, disks, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def fabric() -> Iterator[Callable[..., NetworkFabric]]:
    made: list[NetworkFabric] = []

    def make(*storages: Storage) -> NetworkFabric:
        made.append(NetworkFabric([one.portal for one in storages]))
        return made[-1]

    yield make
    for one in made:
        one.close()


def copy(fabric: NetworkFabric, source: Designator, destination: Designator) -> None:
    cscds = [IdentificationCscd(one, BlockParameters(512), 0) for one in (source, destination)]
    segments = [BlockToBlock(0, 1, SIZE // 512, 0, 0)]
    CopyManager(fabric).extended_copy("n", CopyList(cscds, segments).pack(), lambda: False)


def test_copy_between_two_targets(storage, fabric) -> None:
    left, right = storage("left", ["a", "b"]), storage("rite", ["c"])
    left.path("b").write_bytes(bytes(range(256)) * (SIZE // 256))
    copy(fabric(left, right), left.name("b"), right.name("c"))
    right.stop()
    assert right.path("c").read_bytes() == left.path("b").read_bytes()


def test_announced_address_that_cannot_be_reached_does_not_matter(storage, fabric) -> None:
    hidden = storage("hide", ["a"], advertise=[NOWHERE])
    unit = fabric(hidden).open(hidden.name("a"))
    unit.close()


def test_portal_without_anyone_does_not_hide_the_others(storage) -> None:
    there = storage("here", ["a"])
    fabric = NetworkFabric([("127.0.0.1", 1), (there.portal.host, there.portal.port)])
    fabric.open(there.name("a")).close()
    fabric.close()


def test_unknown_designator_is_unreachable(storage, fabric) -> None:
    there = storage("here", ["a"])
    with pytest.raises(UnitUnreachable):
        fabric(there).open(there.name("b"))


def test_nobody_at_any_portal_is_unreachable() -> None:
    with pytest.raises(UnitUnreachable):
        NetworkFabric([("127.0.0.1", 1)]).open(locally_assigned("x", "y"))


def test_unit_that_comes_later_is_found(storage, fabric) -> None:
    there = storage("here", ["a"])
    finder = fabric(there)
    finder.open(there.name("a")).close()
    there.stop()
    there.start(["a", "b"])
    finder.open(there.name("b")).close()


def test_unit_that_moves_to_another_lun_is_not_mistaken(storage, fabric) -> None:
    there = storage("here", ["a", "b"])
    finder = fabric(there)
    finder.open(there.name("a")).close()
    there.path("b").write_bytes(b"b" * SIZE)
    there.stop()
    there.start(["b", "a"])
    copy(finder, there.name("b"), there.name("a"))
    there.stop()
    assert there.path("a").read_bytes() == b"b" * SIZE


def test_unit_that_goes_is_unreachable(storage, fabric) -> None:
    there = storage("here", ["a", "b"])
    finder = fabric(there)
    finder.open(there.name("b")).close()
    there.stop()
    there.start(["a"])
    with pytest.raises(UnitUnreachable):
        finder.open(there.name("b"))


def test_sessions_serve_copy_after_copy(storage, fabric) -> None:
    there = storage("here", ["a", "b"])
    finder = fabric(there)
    for _ in range(20):
        copy(finder, there.name("a"), there.name("b"))
    assert len(there.target.sessions()) == 1


def test_units_of_a_copy_share_a_session_until_the_last_is_closed(storage, fabric) -> None:
    there, elsewhere = storage("here", ["a", "b"]), storage("there", ["c"])
    finder = fabric(there, elsewhere)
    first = finder.open(there.name("a"))
    second = first.beside(there.name("b"))
    assert first.beside(elsewhere.name("c")) is None
    assert len(there.target.sessions()) == 1
    first.close()
    assert first.beside(there.name("b")) is None
    other = finder.open(there.name("a"))  # the session of the second is not given to another copy
    assert len(there.target.sessions()) == 2
    for unit in (second, other):
        unit.submit(TestUnitReady().pack()).wait()
        unit.close()


def test_a_broken_unit_takes_the_others_of_its_copy_with_it(storage, fabric) -> None:
    there = storage("here", ["a", "b"])
    finder = fabric(there)
    first = finder.open(there.name("a"))
    second = first.beside(there.name("b"))
    first.close(broken=True)
    with pytest.raises(SessionLost):
        second.submit(TestUnitReady().pack())
    second.close()
    finder.open(there.name("b")).submit(TestUnitReady().pack()).wait()


def test_session_belongs_to_one_copy_at_a_time(storage, fabric) -> None:
    there = storage("here", ["a"])
    finder = fabric(there)
    units = [finder.open(there.name("a")) for _ in range(3)]
    assert len(there.target.sessions()) == 3
    for unit in units:
        unit.close()
        unit.close()  # no harm
    again = [finder.open(there.name("a")) for _ in range(3)]
    assert len({id(unit._link) for unit in again}) == 3
    assert len(there.target.sessions()) == 3
    for unit in again:
        unit.close()


def test_idle_session_that_died_is_replaced(storage, fabric) -> None:
    there = storage("here", ["a"])
    finder = fabric(there)
    finder.open(there.name("a")).close()
    for session in there.target.sessions():
        session.link.drop()
    unit = finder.open(there.name("a"))
    unit.submit(TestUnitReady().pack()).wait()
    unit.close()


def test_broken_unit_takes_its_session_with_it(storage, fabric) -> None:
    there = storage("here", ["a"])
    finder = fabric(there)
    unit = finder.open(there.name("a"))
    there.stop()
    with pytest.raises(SessionLost):
        unit.submit(TestUnitReady().pack()).wait()
    unit.close(broken=True)
    with pytest.raises(UnitUnreachable):
        finder.open(there.name("a"))


def test_close_logs_out(storage, fabric) -> None:
    there = storage("here", ["a"])
    finder = fabric(there)
    finder.open(there.name("a")).close()
    in_use = finder.open(there.name("a"))
    finder.close()
    in_use.close()
    # The target forgets a session a moment after it has answered the logout.
    deadline = time.monotonic() + 5
    while there.target.sessions() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert there.target.sessions() == []


def test_many_threads_open_at_once(storage, fabric) -> None:
    there = storage("here", ["a", "b"])
    finder = fabric(there)
    errors: list[BaseException] = []

    def work(disk: str) -> None:
        try:
            for _ in range(5):
                unit = finder.open(there.name(disk))
                unit.submit(TestUnitReady().pack()).wait()
                unit.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=("ab"[n % 2],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len(there.target.sessions()) <= 6


class TestTargetsOfOneName:
    """Two systems that were given the same iSCSI name: their units' designators tell them apart."""

    def test_units_of_both_are_found(self, storage, fabric) -> None:
        left, right = storage("twin", ["a"]), storage("twin", ["b"])
        left.path("a").write_bytes(bytes(range(256)) * (SIZE // 256))
        finder = fabric(left, right)
        copy(finder, left.name("a"), right.name("b"))
        copy(finder, left.name("a"), right.name("b"))  # and with the sessions that are there now
        right.stop()
        assert right.path("b").read_bytes() == left.path("a").read_bytes()

    def test_a_lun_that_both_have_is_neither(self, storage, fabric) -> None:
        left, right = storage("twin", ["a"]), storage("twin", ["b", "c"])
        finder = fabric(left, right)
        with pytest.raises(UnitUnreachable, match="there are 2"):
            finder.open_named(left.iqn, 0)
        unit = finder.open_named(left.iqn, 1)
        assert unit.identity[2] == right.name("c").identifier
        unit.close()

    def test_a_unit_that_both_have_is_neither(self, storage, fabric, caplog) -> None:
        left, right = storage("twin", ["a", "b"]), storage("twin", ["a", "c"])
        finder = fabric(left, right)
        said = f"two targets are named {left.iqn}, at {left.portal} and at {right.portal}"
        with pytest.raises(UnitUnreachable, match=said):
            finder.open(left.name("a"))
        assert any(
            said in each.getMessage() for each in caplog.records if each.levelname == "ERROR"
        )
        with pytest.raises(UnitUnreachable, match=said):
            finder.open_named(left.iqn, 0)
        for one, disk in ((left, "b"), (right, "c")):
            finder.open(one.name(disk)).close()
        assert finder.open_at(right.portal, 0).identity[2] == right.name("a").identifier

    def test_one_that_comes_later_is_noticed(self, storage, fabric, monkeypatch) -> None:
        left, right = storage("twin", ["a"]), storage("twin", ["b"])
        finder = fabric(left, right)
        finder.open(left.name("a")).close()
        right.stop()
        right.start(["a"])
        monkeypatch.setattr("serverfree.datamover.fabric._SURVEY_LASTS", 0)
        with pytest.raises(UnitUnreachable, match="two targets are named"):
            finder.open(left.name("a"))
        right.stop()
        finder.open(left.name("a")).close()

    def test_a_portal_and_a_lun_lead_to_its_own(self, storage, fabric) -> None:
        left, right = storage("twin", ["a"]), storage("twin", ["b"])
        finder = fabric(left, right)
        for one, disk in ((left, "a"), (right, "b"), (left, "a")):
            unit = finder.open_at(one.portal, 0)
            assert unit.identity[2] == one.name(disk).identifier
            unit.close()


def test_two_ways_to_a_named_target_are_one_unit(storage) -> None:
    there = storage("here", ["a"])
    finder = NetworkFabric([there.portal, ("localhost", there.portal.port)])
    unit = finder.open_named(there.iqn, 0)
    assert unit.identity[2] == there.name("a").identifier
    unit.close()
    finder.close()


def test_two_ways_to_a_target_that_announces_neither_are_one_unit(storage) -> None:
    there = storage("here", ["a"], advertise=[NOWHERE])
    finder = NetworkFabric([there.portal, ("localhost", there.portal.port)])
    finder._timing = Timing(connect=0.2)
    finder.open(there.name("a")).close()
    finder.open_named(there.iqn, 0).close()
    finder.close()
