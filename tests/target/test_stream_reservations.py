"""What a reservation leaves of a tape drive to others, and what of it outlives the process."""

from pathlib import Path

import pytest

from serverfree.scsi.status import Status
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.stream import StreamUnit
from support.reserving import CLEAR, EA, REGISTER, TARGET, TYPES, WE, Member, nexus

APTPL = 0x01
CONFLICT, GOOD = Status.RESERVATION_CONFLICT, Status.GOOD

# Oracle T10000 interface reference, table 2-2; the rows of SPC commands are SPC-4 table 65.
ALLOWED = {
    "TEST UNIT READY": "00 00 00 00 00 00",
    "INQUIRY": "12 00 00 00 24 00",
    "REQUEST SENSE": "03 00 00 00 fc 00",
    "LOG SENSE": "4d 00 40 00 00 00 00 01 00 00",
    "READ BLOCK LIMITS": "05 00 00 00 00 00",
    "READ MEDIA SERIAL NUMBER": "ab 01 00 00 00 00 00 00 01 00 00 00",
    "ALLOW MEDIUM REMOVAL": "1e 00 00 00 00 00",
    "REPORT LUNS": "a0 00 00 00 00 00 00 00 01 00 00 00",
    "PERSISTENT RESERVE IN": "5e 00 00 00 00 00 00 01 00 00",
}
CONFLICTING = {
    "ERASE(6)": "19 00 00 00 00 00",
    "LOAD": "1b 00 00 00 01 00",
    "UNLOAD": "1b 00 00 00 00 00",
    "LOCATE(10)": "2b 00 00 00 00 00 00 00 00 00",
    "LOCATE(16)": "92 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
    "LOG SELECT": "4c 02 00 00 00 00 00 00 00 00",
    "MODE SELECT(6)": "15 10 00 00 00 00",
    "PREVENT MEDIUM REMOVAL": "1e 00 00 00 01 00",
    "READ(6)": "08 00 00 00 01 00",
    "READ(16)": "88 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00",
    "READ POSITION": "34 00 00 00 00 00 00 00 00 00",
    "REWIND": "01 00 00 00 00 00",
    "SPACE(6)": "11 03 00 00 00 00",
    "VERIFY(6)": "13 00 00 00 00 00",
    "WRITE FILEMARKS(6)": "10 00 00 00 01 00",
    "WRITE FILEMARKS(6), a mere sync": "10 00 00 00 00 00",
    "SET CAPACITY": "0b 00 00 ff ff 00",
    "FORMAT MEDIUM": "04 00 00 00 00 00",
    "ALLOW OVERWRITE": "82 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
    "WRITE ATTRIBUTE": "8d 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
}
# ... and these with an exclusive access reservation only.
EXCLUSIVE = {
    "READ ATTRIBUTE": "8c 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00",
    "MODE SENSE(6)": "1a 00 3f 00 ff 00",
    "SECURITY PROTOCOL IN": "a2 20 00 00 00 00 00 00 01 00 00 00",
}


def open_drive(folder: Path) -> StreamUnit:
    cartridge = open_cartridge(folder / "tape", 1 << 20)
    return StreamUnit("t", cartridge, target=TARGET, state=StateFile(folder / "tape.state"))


def member(unit: StreamUnit, name: str) -> Member:
    unit.attach(nexus(name))
    one = Member(unit, name)
    one(bytes(6))
    return one


@pytest.mark.parametrize("kind", TYPES)
def test_each_command_beside_a_reservation_of_another(tmp_path: Path, kind: int) -> None:
    unit = open_drive(tmp_path)
    holder, other = member(unit, "holder"), member(unit, "other")
    holder.register(1)
    assert holder.reserve(kind) is GOOD
    refused = CONFLICTING | (EXCLUSIVE if kind in (3, 6, 8) else {})
    for name, cdb in {**ALLOWED, **CONFLICTING, **EXCLUSIVE}.items():
        conflicts = other(bytes.fromhex(cdb)).status is CONFLICT
        assert conflicts == (name in refused), name
    # Nothing of it went through: the holder finds the tape loaded, and writes.
    holder.good(bytes.fromhex("0a 00 00 00 04 00"), b"data")
    holder.good(bytes.fromhex("10 00 00 00 01 00"))
    unit.close()


def test_a_registered_nexus_writes_where_registrants_may(tmp_path: Path) -> None:
    unit = open_drive(tmp_path)
    holder, other = member(unit, "holder"), member(unit, "other")
    holder.register(1)
    other.register(2)
    for kind in TYPES:
        assert holder.reserve(kind) is GOOD
        wrote = other(bytes.fromhex("0a 00 00 00 04 00"), b"data").status is GOOD
        assert wrote == (kind not in (WE, EA))
        assert holder.out(2, kind=kind).status is GOOD
        other(bytes(6))  # hears of the release
    unit.close()


def test_with_aptpl_a_restart_forgets_nothing(tmp_path: Path) -> None:
    for flags in (0, APTPL):
        unit = open_drive(tmp_path)
        holder = member(unit, "holder")
        holder.register(1, flags)
        assert holder.reserve(EA) is GOOD
        assert holder.report(2)[2] & 1  # PTPL_C: it can be asked for
        unit.close()
        unit = open_drive(tmp_path)
        survivor, other = member(unit, "holder"), member(unit, "other")
        assert survivor.keys() == [1] * flags
        assert survivor.reservation() == ((1, EA) if flags else None)
        refused = other(bytes.fromhex("10 00 00 00 01 00")).status is CONFLICT
        assert refused is bool(flags)
        if flags:
            survivor.key = 1
            assert survivor.out(CLEAR).status is GOOD
        unit.close()
    assert member(open_drive(tmp_path), "holder").keys() == []


def test_without_a_state_file_aptpl_is_refused(tmp_path: Path) -> None:
    unit = StreamUnit("t", open_cartridge(tmp_path / "tape", 1 << 20), target=TARGET)
    one = member(unit, "one")
    assert one.out(REGISTER, new=1, flags=APTPL).status is Status.CHECK_CONDITION
    unit.close()
