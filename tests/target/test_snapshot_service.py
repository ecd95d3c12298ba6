"""Snapshots at LUNs of their own: who sees them, what they read, how they come and go."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest

from serverfree.initiator.disk import Disk
from serverfree.initiator.session import Session
from serverfree.scsi.cdb.copy import ExtendedCopy
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.target.backstore.quiet import Cancelled, NotQuiet
from serverfree.target.config import ConfigError
from serverfree.target.config_file import load
from serverfree.target.service import Service
from serverfree.target.snapshots import Conflict, InUse, NotFound
from serverfree.target.units import snapshot as snapshot_unit

STORAGE = "iqn.2026-11.com.example:storage"
ME = "iqn.2026-11.com.example:me"
TEST_UNIT_READY = bytes(6)
OLD, NEW = b"\x11" * 4096, b"\x22" * 4096
SECONDS = 20.0
FORCE = {"force": True}


class Served:
    """A service over a configuration file in `folder`."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path = folder / "served.toml"
        self.write(text)
        self.service = Service(load(self.path))
        self.port = self.service.start()[0].port
        self.snapshots = self.service.snapshots

    def write(self, text: str) -> None:
        self.path.write_text('[server]\nportals = ["127.0.0.1:0"]\n' + text)

    def reload(self, text: str) -> None:
        self.write(text)
        self.service.reload(load(self.path))

    def log_in(self, name: str = ME) -> Session:
        return Session("127.0.0.1", self.port, STORAGE, name)


@pytest.fixture
def serve(tmp_path) -> Iterator:
    running: list[Service] = []

    def start(text: str) -> Served:
        while running:
            running.pop().stop()
        served = Served(tmp_path, text)
        running.append(served.service)
        return served

    yield start
    for service in running:
        service.stop()


def disk(name: str = "data", more: str = "quiet = 0") -> str:
    return f'[[target.disk]]\nname = "{name}"\npath = "{name}.img"\nsize = "1MiB"\n{more}\n'


def target(*disks: str, more: str = "") -> str:
    return f'[[target]]\niqn = "{STORAGE}"\n{"".join(disks) or disk()}{more}'


def attentions(session: Session, lun: int) -> list[Asc]:
    """Return everything that a unit has to tell."""
    told = []
    while (sense := session.unit(lun).submit(TEST_UNIT_READY).wait().sense) is not None:
        assert sense.key is SenseKey.UNIT_ATTENTION
        told.append(sense.asc)
    return told


def luns(session: Session) -> list[int]:
    """What REPORT LUNS (SPC-4 6.33) lists: numbers of flat and of peripheral addresses."""
    cdb = bytes((0xA0, 0, 2)) + bytes(3) + (256).to_bytes(4, "big") + bytes(2)
    room = bytearray(256)
    session.unit(0).submit(cdb, data_in=memoryview(room)).wait()
    length = int.from_bytes(room[:4], "big")
    return [int.from_bytes(room[at : at + 2], "big") & 0x3FFF for at in range(8, 8 + length, 8)]


def page(session: Session, lun: int, code: int) -> bytes:
    """A vital product data page, without its head."""
    room = bytearray(255)
    session.unit(lun).submit(bytes((0x12, 1, code, 0, 255, 0)), data_in=memoryview(room)).wait()
    return bytes(room[4 : 4 + int.from_bytes(room[2:4], "big")])


@contextmanager
def sense(key, asc):
    with pytest.raises(CheckCondition) as caught:
        yield
    assert (caught.value.sense.key, caught.value.sense.asc) == (key, asc)


def test_a_snapshot_keeps_its_bytes_at_a_lun_of_its_own(serve):
    served = serve(target())
    with served.log_in() as session:
        origin = Disk(session.unit(0))
        origin.write(0, OLD)
        made = served.snapshots.create("data")
        assert made.lun == 255
        origin.write(0, NEW)
        shown = Disk(session.unit(255))
        attentions(session, 255)
        assert bytes(shown.read(0, 8)) == OLD
        assert bytes(origin.read(0, 8)) == NEW
        assert shown.capacity().blocks == origin.capacity().blocks


def test_a_snapshot_cannot_be_written(serve):
    served = serve(target())
    served.snapshots.create("data")
    with served.log_in() as session, sense(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED):
        attentions(session, 255)
        Disk(session.unit(255)).write(0, NEW)


def test_live_sessions_hear_that_a_lun_has_come_and_gone(serve):
    served = serve(target())
    with served.log_in() as session:
        attentions(session, 0)
        served.snapshots.create("data", name="one")
        assert attentions(session, 0) == [Asc.REPORTED_LUNS_DATA_HAS_CHANGED]
        assert luns(session) == [0, 255]
        served.snapshots.delete("one")
        assert attentions(session, 0) == [Asc.REPORTED_LUNS_DATA_HAS_CHANGED]
        assert luns(session) == [0]


def test_every_snapshot_has_a_designator_and_serial_number_that_nothing_else_ever_had(serve):
    served = serve(target())
    seen = []
    with served.log_in() as session:
        for _ in range(2):
            served.snapshots.create("data", name="same")
            attentions(session, 255)
            designation = page(session, 255, 0x83)
            # One NAA designator, type 3h, of the logical unit (SPC-4 7.8.6): code set 1, length 8.
            assert designation[:4] == bytes((1, 3, 0, 8))
            assert designation[4] >> 4 == 3
            assert page(session, 255, 0x80) == designation[4:12].hex().upper().encode()
            seen.append(designation[4:12])
            served.snapshots.delete("same")
        seen.append(page(session, 0, 0x83)[4:12])
    assert len(set(seen)) == 3


def test_snapshots_outlive_the_process_with_their_lun_name_designator_and_label(serve):
    served = serve(target())
    with served.log_in() as session:
        Disk(session.unit(0)).write(0, OLD)
    before = served.snapshots.create("data", name="kept", consistency="app")
    served.snapshots.create("data", name="gone")
    served.snapshots.create("data", name="third")
    served.snapshots.delete("gone")
    served = serve(target())
    with served.log_in() as session:
        Disk(session.unit(0)).write(0, NEW)
        attentions(session, 255)
        assert bytes(Disk(session.unit(255)).read(0, 8)) == OLD
    kept = served.snapshots.find("kept")
    assert (kept.lun, kept.consistency) == (255, "app")
    assert kept.unit.designator == before.unit.designator
    assert [(one.snapshot.name, one.lun) for one in served.snapshots.all()] == [
        ("kept", 255),
        ("third", 253),
    ]


def test_a_configured_unit_wins_the_lun_at_a_start_and_the_snapshot_moves(serve):
    served = serve(target())
    served.snapshots.create("data", name="kept")
    served = serve(target(disk(), disk("other", "lun = 255")))
    assert served.snapshots.find("kept").lun == 254
    assert served.service.targets[0].units[255].name == "other"


def test_a_reload_does_not_take_the_lun_of_a_snapshot(serve):
    served = serve(target())
    served.snapshots.create("data", name="kept")
    with pytest.raises(ConfigError, match="LUN 255 is that of snapshot kept"):
        served.reload(target(disk(), disk("other", "lun = 255")))
    served.reload(target(disk(), disk("other", "quiet = 0\nlun = 254")))
    assert served.snapshots.find("kept").lun == 255
    assert sorted(served.service.targets[0].units) == [0, 254, 255]
    assert served.snapshots.create("other").lun == 253


def test_a_disk_that_goes_takes_its_snapshots_along_and_brings_them_back(serve):
    both = target(disk(), disk("other"))
    served = serve(both)
    served.snapshots.create("other", name="theirs")
    with served.log_in() as session:
        attentions(session, 0)
        served.reload(target())
        assert attentions(session, 0) == [Asc.REPORTED_LUNS_DATA_HAS_CHANGED]
        assert luns(session) == [0]
        with pytest.raises(NotFound):
            served.snapshots.find("theirs")
        served.reload(both)
        assert luns(session) == [0, 1, 255]
        assert served.snapshots.find("theirs").lun == 255


def test_a_target_that_goes_takes_its_snapshots_along(serve):
    other = f'[[target]]\niqn = "{STORAGE}:b"\n{disk("other")}'
    served = serve(target() + other)
    served.snapshots.create("other", name="theirs")
    served.reload(target())
    assert not served.snapshots.all()
    served.reload(target() + other)
    assert [one.snapshot.name for one in served.snapshots.all()] == ["theirs"]


def test_whoever_sees_the_disk_sees_its_snapshots_and_nobody_else(serve):
    access = (
        f'[[target.access]]\ninitiator = "{ME}"\nluns = [{{ lun = 5, unit = "data" }}]\n'
        '[[target.access]]\ninitiator = "*"\nluns = [{ lun = 0, unit = "other" }]\n'
    )
    served = serve(target(disk(), disk("other"), more=access))
    with served.log_in() as mine, served.log_in("iqn.2026-11.com.example:else") as theirs:
        served.snapshots.create("data")
        attentions(theirs, 0)
        assert luns(mine) == [5, 255]
        assert luns(theirs) == [0]
        attentions(mine, 255)
        assert len(bytes(Disk(mine.unit(255)).read(0, 1))) == 512
        with sense(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED):
            Disk(theirs.unit(255)).read(0, 1)


def test_a_snapshot_takes_no_lun_that_an_initiator_knows_another_unit_by(serve):
    access = f'[[target.access]]\ninitiator = "{ME}"\nluns = [{{ lun = 255, unit = "data" }}]\n'
    served = serve(target(more=access))
    assert served.snapshots.create("data").lun == 254


def test_after_255_luns_it_goes_on_behind_them(serve):
    mapped = ", ".join(f'{{ lun = {n}, unit = "data" }}' for n in range(1, 256))
    access = f'[[target.access]]\ninitiator = "{ME}"\nluns = [{mapped}]\n'
    served = serve(target(more=access))
    assert served.snapshots.create("data").lun == 256
    with served.log_in() as session:
        attentions(session, 256)
        assert len(bytes(Disk(session.unit(256)).read(0, 1))) == 512


def test_what_is_being_read_is_deleted_by_force_only(serve, monkeypatch):
    served = serve(target())
    made = served.snapshots.create("data", name="read")
    with served.log_in() as session:
        attentions(session, 255)
        Disk(session.unit(255)).capacity()
        assert made.unit.use() is None  # asking what it is does not count
        Disk(session.unit(255)).read(0, 1)
        with pytest.raises(InUse, match=r"it was read 0\.\d seconds ago"):
            served.snapshots.delete("read")
        monkeypatch.setattr(snapshot_unit, "RECENTLY", 0.0)
        served.snapshots.delete("read")
        served.snapshots.create("data", name="read")
        monkeypatch.undo()
        attentions(session, 255)
        Disk(session.unit(255)).read(0, 1)
        served.snapshots.delete("read", force=True)
        assert not served.snapshots.all()


def test_a_snapshot_that_is_reserved_is_in_use(serve):
    served = serve(target())
    served.snapshots.create("data", name="read")
    with served.log_in() as session:
        attentions(session, 255)
        unit = session.unit(255)
        # PERSISTENT RESERVE OUT: REGISTER key 1, then RESERVE write exclusive (SPC-4 6.16).
        register = bytes(8) + (1).to_bytes(8, "big") + bytes(8)
        reserve = (1).to_bytes(8, "big") + bytes(16)
        for action, kind, data in ((0, 0, register), (1, 1, reserve)):
            cdb = bytes((0x5F, action, kind)) + bytes(2) + (24).to_bytes(4, "big") + bytes(1)
            assert unit.submit(cdb, data_out=data).wait().sense is None
        with pytest.raises(InUse, match="reserved"):
            served.snapshots.delete("read")


def test_a_copy_manager_of_the_target_copies_from_a_snapshot(serve):
    served = serve(target(disk(), disk("other")))
    with served.log_in() as session:
        Disk(session.unit(0)).write(0, OLD)
        made = served.snapshots.create("data")
        Disk(session.unit(0)).write(0, NEW)
        attentions(session, 255), attentions(session, 1)
        other = served.service.targets[0].units[1]
        names = [unit.designator for unit in (made.unit, other)]
        cscds = [IdentificationCscd(name, BlockParameters(512), 0) for name in names]
        parameters = CopyList(cscds, [BlockToBlock(0, 1, 8, 0, 0)]).pack()
        cdb = ExtendedCopy(parameter_list_length=len(parameters)).pack()
        result = session.unit(1).submit(cdb, data_out=parameters).wait()
        assert result.sense is None, result.sense
        assert bytes(Disk(session.unit(1)).read(0, 8)) == OLD


def test_the_gate_waits_and_gives_up(serve):
    served = serve(target(disk(more="quiet = 30")))
    with served.log_in() as session:
        Disk(session.unit(0)).write(0, OLD)
    with pytest.raises(NotQuiet) as caught:
        served.snapshots.create("data", timeout=0.1)
    assert (caught.value.asked, caught.value.timeout) == (30, 0.1)
    with pytest.raises(NotQuiet):
        served.snapshots.create("data", quiet=20, timeout=0.1, name="late")
    assert not served.snapshots.all()
    assert served.snapshots.create("data", quiet=0, name="late").lun == 255


def waiting(served: Served, outcome: list[object], **wish: object) -> threading.Thread:
    """Begin to wait for a disk that is not quiet, and return when the wait has begun."""

    def wait() -> None:
        try:
            outcome.append(served.snapshots.create("data", quiet=60, timeout=60, **wish))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    for _ in range(1000):
        if served.snapshots.luns(served.service.targets[0]):
            return thread
        Event().wait(0.005)
    raise AssertionError("it does not wait")


@pytest.mark.parametrize("how", ["cancel", "reload", "stop"])
def test_a_wait_ends_when_it_is_cancelled_or_the_disk_goes(serve, how):
    served = serve(target(disk(), disk("other")))
    with served.log_in() as session:
        Disk(session.unit(0)).write(0, OLD)
    cancelled, outcome = Event(), []
    thread = waiting(served, outcome, cancelled=cancelled)
    match how:
        case "cancel":
            cancelled.set()
        case "reload":
            served.reload(target(disk("other", "quiet = 0\nlun = 1")))
        case "stop":
            served.snapshots.close()
    thread.join(SECONDS)
    assert [type(one) for one in outcome] == [Cancelled]
    assert served.snapshots.luns(served.service.targets[0]) == {}


def test_nothing_else_waits_while_one_waits(serve):
    served = serve(target(disk(), disk("other")))
    with served.log_in() as session:
        Disk(session.unit(0)).write(0, OLD)
        cancelled, outcome = Event(), []
        thread = waiting(served, outcome, cancelled=cancelled, name="promised")
        made = served.snapshots.create("other")
        assert made.lun == 254  # 255 is promised to the one that waits
        with pytest.raises(Conflict, match="promised already"):
            served.snapshots.create("other", name="promised")
        served.reload(target(disk(), disk("other"), disk("third")))
        Disk(session.unit(0)).write(0, NEW)
        cancelled.set()
        thread.join(SECONDS)


def test_names_are_told_apart_and_made_up(serve):
    served = serve(target(disk("a disk")))
    first = served.snapshots.create("a disk")
    second = served.snapshots.create("a disk")
    assert first.snapshot.name != second.snapshot.name
    assert first.snapshot.name.startswith("a-disk-20")
    for taken in (first.snapshot.name, "a disk"):
        with pytest.raises(Conflict):
            served.snapshots.create("a disk", name=taken)


def test_two_disks_of_one_name_are_told_apart_by_their_designators(serve):
    served = serve(
        target() + f'[[target]]\niqn = "{STORAGE}:b"\n{disk()}'.replace("a.img", "b.img")
    )
    with pytest.raises(Conflict, match="designator"):
        served.snapshots.create("data")
    other = served.service.targets[1]
    made = served.snapshots.create(other.units[0].serial.lower())
    assert made.disk.target is other


def test_a_disk_that_may_only_be_read_has_no_snapshots(serve):
    served = serve(target())
    served = serve(target('[[target.disk]]\nname = "data"\npath = "data.img"\nreadonly = true\n'))
    with pytest.raises(NotFound):
        served.snapshots.create("data")


def test_snapshots_lie_where_the_configuration_says(serve, tmp_path):
    served = serve(target(disk(more='quiet = 0\nsnapshots = "elsewhere"')))
    served.snapshots.create("data")
    assert list((tmp_path / "elsewhere" / "data.img.snapshots").iterdir())
    assert not (tmp_path / "data.img.snapshots").exists()


def test_changes_are_told_since_a_generation_whose_snapshot_is_gone(serve):
    served = serve(target())
    with served.log_in() as session:
        origin = Disk(session.unit(0))
        first = served.snapshots.create("data", name="first")
        origin.write(256, OLD)  # 128 KiB in: the third chunk of 64 KiB
        served.snapshots.delete("first")
        served.snapshots.create("data", name="second")
    since = first.snapshot.generation
    assert served.snapshots.changes("second", since) == ([(128 << 10, 64 << 10)], True)
    assert served.snapshots.changes("second", since - 1)[1] is False


def test_bad_blocks_of_the_disk_are_bad_in_its_snapshot(serve):
    served = serve(target(disk(more='quiet = 0\nbad = "100"')))
    served.snapshots.create("data")
    with served.log_in() as session:
        attentions(session, 255)
        with sense(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR):
            Disk(session.unit(255)).read(96, 8)
        assert bytes(Disk(session.unit(255)).read(0, 8)) == bytes(4096)


class Writer(threading.Thread):
    """Writes 1, 2, 3, ... into the slots of a region of its own, one after the other.

    So what is in the region tells how many writes there were, and that none is missing.
    """

    SLOTS, BLOCKS = 24, 9  # a slot is not a whole number of chunks, and chunks are shared

    def __init__(self, served: Served, number: int) -> None:
        super().__init__()
        self.number, self.done, self.stop = number, 0, Event()
        self._served = served

    def run(self) -> None:
        with self._served.log_in(f"{ME}:{self.number}") as session:
            disk = Disk(session.unit(0))
            while not self.stop.is_set():
                slot = self.done % self.SLOTS
                content = (self.done + 1).to_bytes(8, "big") * (64 * self.BLOCKS)
                disk.write(self._lba(slot), content)
                self.done += 1

    def _lba(self, slot: int) -> int:
        # Regions interleave: neighbours in a chunk belong to different writers.
        return (slot * 3 + self.number) * self.BLOCKS

    def count(self, content: bytes) -> int:
        """Return after how many writes the region looks like this; fails if it never does."""
        slots = []
        for slot in range(self.SLOTS):
            at = self._lba(slot) * 512
            words = {content[i : i + 8] for i in range(at, at + self.BLOCKS * 512, 8)}
            assert len(words) == 1, "half a write"
            slots.append(int.from_bytes(words.pop(), "big"))
        done = max(slots)
        expected = [0] * self.SLOTS
        for write in range(max(0, done - self.SLOTS), done):
            expected[write % self.SLOTS] = write + 1
        assert slots == expected, "a later write without an earlier one"
        return done


def test_snapshots_under_writers_are_each_one_moment_and_stay_so(serve):
    served = serve(target(disk(more='quiet = 0\nchunk = "4KiB"')))
    writers = [Writer(served, number) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        seen: dict[str, bytes] = {}
        with served.log_in() as session:
            for number in range(8):
                earliest = [writer.done for writer in writers]
                made = served.snapshots.create("data", name=f"s{number}")
                latest = [writer.done for writer in writers]
                attentions(session, made.lun)
                content = bytes(Disk(session.unit(made.lun)).read(0, 1024))
                for writer, low, high in zip(writers, earliest, latest, strict=True):
                    # One write may have reached the disk and not been counted yet.
                    assert low <= writer.count(content) <= high + 1
                seen[f"s{number}"] = content
                for name in list(seen)[:-4]:
                    served.snapshots.delete(name, force=True)
                    del seen[name]
                for name, before in seen.items():
                    lun = served.snapshots.find(name).lun
                    attentions(session, lun)
                    assert bytes(Disk(session.unit(lun)).read(0, 1024)) == before
        assert all(writer.done > Writer.SLOTS for writer in writers)
    finally:
        for writer in writers:
            writer.stop.set()
            writer.join(SECONDS)


def test_by_force_a_snapshot_goes_from_under_its_readers_and_nothing_else_does(serve):
    served = serve(target())
    served.snapshots.create("data", name="read")
    ends: list[Exception] = []
    begun = threading.Barrier(3)

    def read(number: int) -> None:
        with served.log_in(f"{ME}:{number}") as session:
            attentions(session, 255)
            shown = Disk(session.unit(255))
            shown.read(0, 64)
            begun.wait(SECONDS)
            try:
                while True:
                    shown.read(0, 64)
            except CheckCondition as error:
                ends.append(error)
            attentions(session, 0)
            Disk(session.unit(0)).read(0, 1)  # the session goes on

    readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for reader in readers:
        reader.start()
    begun.wait(SECONDS)
    with pytest.raises(InUse):
        served.snapshots.delete("read")
    served.snapshots.delete("read", force=True)
    for reader in readers:
        reader.join(SECONDS)
    assert len(ends) == 2
    assert served.snapshots.create("data", name="read").lun == 255


@pytest.mark.parametrize("slow", ["a reader that does not end", "files that take long to remove"])
def test_while_a_snapshot_goes_everything_else_goes_on(serve, monkeypatch, slow):
    served = serve(target(disk("other"), disk()))
    made = served.snapshots.create("data", name="slow")
    began, go_on = Event(), Event()

    def wait(call):
        def waiting(*arguments):
            began.set()
            assert go_on.wait(SECONDS)
            return call(*arguments)

        return waiting

    def read() -> None:
        with served.log_in(f"{ME}:reader") as session, suppress(CheckCondition):
            attentions(session, made.lun)
            Disk(session.unit(made.lun)).read(0, 64)

    threads = [threading.Thread(target=served.snapshots.delete, args=("slow",), kwargs=FORCE)]
    if slow == "a reader that does not end":
        monkeypatch.setattr(made.unit.store, "pread", wait(made.unit.store.pread))
        monkeypatch.setattr(made.unit.store, "view", wait(made.unit.store.view))
        threads.insert(0, threading.Thread(target=read))
        threads[0].start()
        assert began.wait(SECONDS)
        threads[1].start()
        while made in served.snapshots.all():
            time.sleep(0.01)
    else:
        monkeypatch.setattr(made.disk.origin, "delete", wait(made.disk.origin.delete))
        threads[0].start()
        assert began.wait(SECONDS)
    try:
        with served.log_in() as session:
            assert luns(session) == [0, 1]
        with pytest.raises(NotFound):
            served.snapshots.find("slow")
        with pytest.raises(Conflict, match="a snapshot or unit slow already"):
            served.snapshots.create("other", name="slow")
        assert served.snapshots.create("other", name="quick").lun == 254, "255 may come back"
        assert threads[-1].is_alive()
        again = threading.Thread(target=served.reload, args=(target(disk("other")),))
        again.start()
        assert len(served.snapshots.disks()) == 2, "units change when it has gone"
    finally:
        go_on.set()
        for thread in threads:
            thread.join(SECONDS)
    again.join(SECONDS)
    assert [each.unit.name for each in served.snapshots.disks()] == ["other"]
    assert served.snapshots.create("other").lun == 255
