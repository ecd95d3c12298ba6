"""A disk's medium as a whole: sanitized, formatted, ejected, grown, gone bad."""

import time
from pathlib import Path

import pytest

from serverfree.scsi.cdb.block import Read10, Read16, ReadCapacity10, Verify10, Write10
from serverfree.scsi.cdb.block_medium import ReassignBlocks
from serverfree.scsi.cdb.primary import RequestSense, TestUnitReady
from serverfree.scsi.log import unpack_log_page
from serverfree.scsi.medium import FormatList, OverwriteList
from serverfree.scsi.rod_token import RodType
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.backstore.base import ReadError
from serverfree.target.backstore.faulty import FaultyStore
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.rod_medium import RodMedium
from support.disk import NEXUS, OTHER, Host

SIZE, BLOCK = 8 << 20, 512
IN_PROGRESS = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS)
FAILED = (SenseKey.MEDIUM_ERROR, Asc.SANITIZE_COMMAND_FAILED)
EXIT_FAILURE_MODE = "48 1f 00 00 00 00 00 00 00 00"


def open_disk(folder: Path, **options: object) -> Host:
    store = open_file_store(folder / "d", SIZE, thin=bool(options.pop("thin", False)))
    state = StateFile(folder / "d.state")
    return Host(BlockUnit("d", store, state=state, **options))  # type: ignore[arg-type]


@pytest.fixture
def disk(tmp_path: Path) -> Host:
    return open_disk(tmp_path)


def sanitize(action: int, flags: int = 0, length: int = 0) -> bytes:
    return bytes((0x48, flags | action, 0, 0, 0, 0, 0)) + length.to_bytes(2, "big") + b"\0"


def pollable(disk: Host) -> Sense:
    return Sense.unpack(disk.good(RequestSense(allocation_length=252)))


def wait_until_ready(disk: Host) -> None:
    deadline = time.monotonic() + 20
    while disk(TestUnitReady()).sense is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def everything(disk: Host) -> bytes:
    return b"".join(
        disk.good(Read16(lba=lba, blocks=2048)) for lba in range(0, SIZE // BLOCK, 2048)
    )


# SANITIZE


@pytest.mark.parametrize(
    ("first", "pattern", "expected"),
    [
        (0x01, b"\xaa\x55", b"\xaa\x55" * 256),
        (0x02, b"abc", (b"abc" * 171)[:512]),
        (0x82, b"\x0f", b"\x0f" * 512),  # inverted in turn, the last pass as given
    ],
)
def test_sanitize_overwrites_everything(
    disk: Host, first: int, pattern: bytes, expected: bytes
) -> None:
    data = bytes((first, 0)) + len(pattern).to_bytes(2, "big") + pattern
    assert OverwriteList.unpack(data).pack() == data
    cdb = sanitize(1, 0, len(data))
    assert disk.unit.data_out_length(cdb) == len(data)
    disk.good(cdb, data)
    assert everything(disk) == expected * (SIZE // BLOCK)


@pytest.mark.parametrize(
    ("cdb", "data", "asc"),
    [
        (sanitize(1, 0, 4), bytes.fromhex("01000000"), Asc.INVALID_FIELD_IN_CDB),
        (sanitize(1, 0, 517), bytes(517), Asc.INVALID_FIELD_IN_CDB),
        (sanitize(1, 0, 5), bytes.fromhex("0000000100"), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (sanitize(1, 0, 5), bytes.fromhex("0100000200"), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (sanitize(1, 0, 5), bytes.fromhex("4100000100"), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (sanitize(4), b"", Asc.INVALID_FIELD_IN_CDB),
        (sanitize(2, 0x10), b"", Asc.INVALID_FIELD_IN_CDB),
    ],
)
def test_a_sanitize_that_cannot_be_does_nothing(
    disk: Host, cdb: bytes, data: bytes, asc: Asc
) -> None:
    disk.good(Write10(blocks=1), b"x" * BLOCK)
    assert disk.sense(cdb, data).asc is asc
    assert disk.good(Read10(blocks=1)) == b"x" * BLOCK


@pytest.mark.parametrize("action", [2, 3])
@pytest.mark.parametrize("thin", [False, True])
def test_erased_blocks_tell_nothing_of_what_was_there(
    tmp_path: Path, action: int, thin: bool
) -> None:
    disk = open_disk(tmp_path, thin=thin)
    secret = b"secret!!" * 64
    for lba in (0, 5000, SIZE // BLOCK - 1):
        disk.good(Write10(lba=lba, blocks=1), secret)
    disk.good(sanitize(action))
    left = everything(disk)
    assert b"secret!!" not in left
    if action == 2 or disk.unit.store.can_discard:  # type: ignore[attr-defined]
        assert not any(left)
    else:
        assert len(set(left[:4096])) > 200  # random bytes


def test_what_was_sanitized_is_in_no_snapshot_and_no_token(tmp_path: Path) -> None:
    kept = tmp_path / "snapshots"
    store = open_file_store(tmp_path / "d", SIZE, thin=True)
    origin = SnapshotOrigin(store, kept, source=tmp_path / "d", clone=False)
    disk = Host(BlockUnit("d", origin, state=StateFile(tmp_path / "d.state")))
    disk.good(Write10(blocks=1), b"secret!!" * 64)
    snapshot = origin.create("one", 0)
    medium = RodMedium(disk.unit)
    kinds = (RodType.PERSISTENT, RodType.CHANGE_VULNERABLE)
    holds = [medium.hold(kind, [(0, BLOCK)]) for kind in kinds]
    disk.good(Write10(blocks=1), b"x" * BLOCK)
    assert bytes(holds[0].read(0, 8)) == snapshot.open().pread(0, 8) == b"secret!!"
    assert any(b"secret!!" in path.read_bytes() for path in kept.iterdir())
    # A clone that an earlier process had given up, and was killed before it removed it.
    left = kept / f"{snapshot.stem}.clone"
    left.write_bytes(b"secret!!")
    disk.good(sanitize(2))
    assert not any(
        b"secret!!" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )
    assert (snapshot.valid, [hold.valid for hold in holds]) == (False, [False, False])
    with pytest.raises(ReadError, match="sanitized"):
        snapshot.open().pread(0, 8)
    for hold in holds:
        hold.release()
    assert origin.create("two", 0).open().pread(0, SIZE) == bytes(SIZE)
    disk.unit.close()
    again = SnapshotOrigin(open_file_store(tmp_path / "d", None, thin=True), kept, clone=False)
    assert next((one.name, one.valid) for one in again.snapshots()) == ("one", False)
    again.close()


def test_a_snapshot_taken_while_a_disk_is_sanitized_keeps_nothing(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "d", SIZE)
    origin = SnapshotOrigin(store, tmp_path / "snapshots", clone=False)
    state = StateFile(tmp_path / "d.state")
    disk = Host(BlockUnit("d", origin, state=state, operation_rate=SIZE))
    disk.good(Write10(lba=SIZE // BLOCK - 1, blocks=1), b"secret!!" * 64)
    disk.good(sanitize(2, 0x80))
    snapshot = origin.create("meanwhile", 0)
    wait_until_ready(disk)
    assert not snapshot.valid
    assert not any(b"secret!!" in path.read_bytes() for path in (tmp_path / "snapshots").iterdir())
    disk.unit.close()


def test_while_it_is_sanitized_a_disk_answers_what_it_may(tmp_path: Path) -> None:
    disk = open_disk(tmp_path, operation_rate=16 << 20)
    data = OverwriteList(b"\xff").pack()
    disk.good(sanitize(1, 0x80, len(data)), data)
    for cdb in (
        TestUnitReady(),
        Read10(blocks=1),
        bytes.fromhex("1b 00 00 00 01 00"),
        bytes.fromhex("5e 00 00 00 00 00 00 00 20 00"),
        bytes.fromhex("1a 00 3f 00 ff 00"),
        bytes.fromhex("4d 00 42 00 00 00 00 00 ff 00"),
        bytes.fromhex(EXIT_FAILURE_MODE),
    ):
        sense = disk.sense(cdb)
        assert (sense.key, sense.asc) == IN_PROGRESS
        assert sense.progress is not None
    for allowed in (
        "12 00 00 00 24 00",
        "25 00 00 00 00 00 00 00 00 00",
        "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00",
        "a0 00 00 00 00 00 00 00 00 ff 00 00",
        "a3 0c 00 00 00 00 00 00 00 ff 00 00",
        "1a 00 08 00 ff 00",
        "4d 00 4d 00 00 00 00 00 ff 00",
    ):
        disk.good(bytes.fromhex(allowed))
    first = pollable(disk)
    assert (first.key, first.asc) == IN_PROGRESS
    disk.unit.reset()  # has no effect on it (4.11.3)
    deadline = time.monotonic() + 10
    while (later := pollable(disk)).progress == first.progress:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert later.progress is None or later.progress > (first.progress or 0)
    wait_until_ready(disk)
    assert set(everything(disk)) == {0xFF}
    assert pollable(disk).key is SenseKey.NO_SENSE


@pytest.mark.parametrize("restricted", [True, False])
def test_a_sanitize_that_was_cut_off_has_failed(tmp_path: Path, restricted: bool) -> None:
    disk = open_disk(tmp_path, operation_rate=4 << 20)
    data, flags = OverwriteList(b"\0").pack(), 0x80 | (0 if restricted else 0x20)
    disk.good(sanitize(1, flags, len(data)), data)
    disk.unit.close()
    again = open_disk(tmp_path)
    sense = again.sense(Read10(blocks=1))
    assert (sense.key, sense.asc) == FAILED
    assert (pollable(again).key, pollable(again).asc) == FAILED
    if restricted:
        assert again.sense(sanitize(2, 0x20)).asc is Asc.INVALID_FIELD_IN_CDB
        assert again.sense(bytes.fromhex(EXIT_FAILURE_MODE)).asc is FAILED[1]
        again.good(sanitize(2))
    else:
        again.good(bytes.fromhex(EXIT_FAILURE_MODE))
    again.good(Read10(blocks=1))
    again.unit.close()
    open_disk(tmp_path).good(Read10(blocks=1))


def test_a_write_protected_disk_is_not_sanitized(disk: Host) -> None:
    disk.unit.software_write_protect = True  # type: ignore[attr-defined]
    for cdb in (sanitize(2), sanitize(3), bytes.fromhex("04 00 00 00 00 00")):
        assert disk.sense(cdb).asc is Asc.WRITE_PROTECTED


# FORMAT UNIT


@pytest.mark.parametrize(
    ("cdb", "data", "expected"),
    [
        ("04 00 00 00 00 00", "", 0),
        ("04 10 00 00 00 00", "00 00 00 00", 0),
        ("04 10 00 00 00 00", "00 88 00 00  00 01 00 01 77", 0x77),
        ("04 30 00 00 00 00", "00 88 00 00 00 00 00 00  00 01 00 02 66 66", 0x66),
    ],
)
def test_format_unit_writes_every_block(disk: Host, cdb: str, data: str, expected: int) -> None:
    disk.good(Write10(lba=77, blocks=1), b"x" * BLOCK)
    disk.good(bytes.fromhex(cdb), bytes.fromhex(data))
    assert set(everything(disk)) == {expected}


def test_format_unit_in_the_background_tells_its_progress(tmp_path: Path) -> None:
    disk = open_disk(tmp_path, operation_rate=16 << 20)
    disk.good(bytes.fromhex("04 10 00 00 00 00"), FormatList(immed=True, pattern=b"\x01").pack())
    assert disk.sense(Read10(blocks=1)).asc is Asc.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS
    assert pollable(disk).progress is not None
    wait_until_ready(disk)


@pytest.mark.parametrize("data", ["", "01 00 00 00", "00 00 00 08" + "00" * 8, "00 88 00 00 00"])
def test_a_format_that_cannot_be_is_refused(disk: Host, data: str) -> None:
    sense = disk.sense(bytes.fromhex("04 10 00 00 00 00"), bytes.fromhex(data))
    assert sense.asc is Asc.INVALID_FIELD_IN_PARAMETER_LIST


# Removable media


def test_a_removable_medium_is_ejected_and_loaded(tmp_path: Path) -> None:
    disk = open_disk(tmp_path, removable=True)
    other = Host(disk.unit, OTHER)
    assert disk.good(bytes.fromhex("12 00 00 00 24 00"))[1] == 0x80
    eject, load = bytes.fromhex("1b 00 00 00 02 00"), bytes.fromhex("1b 00 00 00 03 00")
    other.good(bytes.fromhex("1e 00 00 00 01 00"))
    assert disk.sense(eject).asc is Asc.MEDIUM_REMOVAL_PREVENTED
    disk.unit.detach(OTHER)
    disk.good(eject)
    for cdb in (TestUnitReady(), Read10(blocks=1), ReadCapacity10(), sanitize(2)):
        sense = disk.sense(cdb)
        assert (sense.key, sense.asc) == (SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
    disk.unit.attach(OTHER)
    assert other.sense(TestUnitReady()).asc is Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED
    disk.good(load)
    assert other.sense(TestUnitReady()).asc is Asc.NOT_READY_TO_READY_CHANGE
    disk.good(Read10(blocks=1))


# Growth


def test_a_disk_whose_file_grows_says_so(disk: Host, tmp_path: Path) -> None:
    disk.unit.attach(NEXUS)
    disk.unit.attach(OTHER)
    other = Host(disk.unit, OTHER)
    disk(TestUnitReady())
    other(TestUnitReady())
    with (tmp_path / "d").open("r+b") as file:
        file.truncate(2 * SIZE)
    assert disk.good(ReadCapacity10())[:4] == (2 * SIZE // BLOCK - 1).to_bytes(4, "big")
    assert other.sense(TestUnitReady()).asc is Asc.CAPACITY_DATA_HAS_CHANGED
    last = 2 * SIZE // BLOCK - 1
    disk.good(Write10(lba=last, blocks=1), b"z" * BLOCK)
    assert disk.good(Read10(lba=last - 1, blocks=2)) == bytes(BLOCK) + b"z" * BLOCK


# Bad blocks


@pytest.fixture
def worn(tmp_path: Path) -> Host:
    """A disk whose blocks 100 to 103 cannot be read."""
    store = FaultyStore(open_file_store(tmp_path / "d", SIZE), [(100 * BLOCK, 104 * BLOCK)])
    return Host(BlockUnit("d", store, state=StateFile(tmp_path / "d.state")))


@pytest.mark.parametrize(
    ("cdb", "lba"),
    [
        (Read10(lba=90, blocks=20), 100),
        (Read16(lba=102, blocks=9), 102),
        (Verify10(blocks=256), 100),
    ],
)
def test_what_cannot_be_read_is_a_medium_error_with_its_lba(
    worn: Host, cdb: Read10, lba: int
) -> None:
    sense = worn.sense(cdb)
    assert (sense.key, sense.asc) == (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
    assert sense.information == lba
    worn.good(Read10(lba=50, blocks=50))


def test_bad_blocks_are_counted_reassigned_and_listed(worn: Host, tmp_path: Path) -> None:
    worn.sense(Read10(lba=100, blocks=1))
    page = worn.good(bytes.fromhex("4d 00 43 00 00 00 00 00 ff 00"))
    assert {one.code: int.from_bytes(one.value, "big") for one in unpack_log_page(page)[2]}[6] == 1
    lists = bytes.fromhex("00 00 00 08  00 00 00 67 00 00 00 66")
    worn.good(ReassignBlocks(), lists)
    assert worn.good(Read10(lba=102, blocks=2)) == bytes(2 * BLOCK)
    worn.sense(Read10(lba=101, blocks=1))
    defects = worn.good(bytes.fromhex("37 00 18 00 00 00 00 00 ff 00"))
    assert defects == bytes.fromhex("00 18 00 08  00 00 00 66 00 00 00 67")
    twelve = worn.good(bytes.fromhex("b7 0b 00 00 00 01 00 00 00 ff 00 00"))
    assert twelve == bytes.fromhex("00 0b 00 00 00 00 00 08  00 00 00 00 00 00 00 67")
    assert StateFile(tmp_path / "d.state").get("grown defects") == [102, 103]
    worn.good(Write10(lba=100, blocks=2), b"w" * 2 * BLOCK)
    assert worn.good(Read10(lba=100, blocks=2)) == b"w" * 2 * BLOCK


def test_a_self_test_finds_bad_blocks(worn: Host) -> None:
    worn.good(bytes.fromhex("1d 04 00 00 00 00"))
    failed = worn.sense(bytes.fromhex("1d c0 00 00 00 00"))  # foreground, extended
    assert (failed.key, failed.asc) == (
        SenseKey.HARDWARE_ERROR,
        Asc.LOGICAL_UNIT_FAILED_SELF_TEST,
    )
    page = worn.good(bytes.fromhex("4d 00 50 00 00 00 00 01 ff 00"))
    newest = unpack_log_page(page)[2][0].value
    assert newest[0] == 0xC4
    assert int.from_bytes(newest[4:12], "big") == 100
    assert newest[12:15] == bytes.fromhex("03 11 00")
