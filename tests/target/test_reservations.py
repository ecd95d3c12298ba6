"""Reservations: the tables of the standard as data, every service action, power and restarts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.block import BlockUnit
from support.reserving import (
    CLEAR,
    EA,
    EA_AR,
    IGNORE,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    RELEASE,
    RESERVE,
    TARGET,
    TYPES,
    WE,
    WE_AR,
    WE_RO,
    Member,
    nexus,
    transport_id,
)

APTPL, ALL_TG_PT, SPEC_I_PT = 0x01, 0x04, 0x08
CONFLICT, GOOD = Status.RESERVATION_CONFLICT, Status.GOOD


def open_disk(folder: Path) -> BlockUnit:
    """A removable disk with a state file, so that it has every command there is."""
    unit = BlockUnit(
        "d",
        open_file_store(folder / "d", 1 << 20, thin=True),
        removable=True,
        target=TARGET,
        state=StateFile(folder / "d.state"),
        journal=folder / "d.journal",
    )
    unit.ports = lambda: (1, 2)
    return unit


@pytest.fixture
def unit(tmp_path: Path) -> BlockUnit:
    return open_disk(tmp_path)


@pytest.fixture
def join(unit: BlockUnit) -> Callable[..., Member]:
    """Make members of a cluster whose power-on attentions have been heard."""

    def join(name: str, key: int = 0, port: int = 1) -> Member:
        unit.attach(nexus(name, port))
        member = Member(unit, name, port)
        member(bytes(6))
        if key:
            member.register(key)
        return member

    return join


def attention(member: Member) -> Asc | int | None:
    """What the nexus has to hear, if anything."""
    sense = Sense.unpack(member.good(bytes.fromhex("03 00 00 00 fc 00")))
    return sense.asc if sense.key is SenseKey.UNIT_ATTENTION else None


# The tables: SPC-4 table 65, SBC-4 table 13. A: allowed, C: conflict; the columns are, from any
# nexus, Write Exclusive and Exclusive Access; from a registered nexus, RR all types; from one that
# is not registered, Write Exclusive - RR and Exclusive Access - RR.
TABLE = {
    "AAAAA": {
        "INQUIRY": "12 00 00 00 24 00",
        "LOG SENSE": "4d 00 40 00 00 00 00 00 ff 00",
        "PREVENT ALLOW 0": "1e 00 00 00 00 00",
        "READ CAPACITY(10)": "25 00 00 00 00 00 00 00 00 00",
        "READ CAPACITY(16)": "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00",
        "RECEIVE COPY": None,
        "REPORT IDENTIFYING INFORMATION": "a3 05 00 00 00 00 00 00 00 ff 00 00",
        "REPORT LUNS": "a0 00 00 00 00 00 00 00 00 ff 00 00",
        "REPORT TARGET PORT GROUPS": "a3 0a 00 00 00 00 00 00 00 ff 00 00",
        "REPORT TIMESTAMP": "a3 0f 00 00 00 00 00 00 00 ff 00 00",
        "REQUEST SENSE": "03 00 00 00 12 00",
        "START STOP UNIT START=1": "1b 00 00 00 01 00",
        "TEST UNIT READY": "00 00 00 00 00 00",
    },
    "ACAAC": {
        "GET LBA STATUS": "9e 12 00 00 00 00 00 00 00 00 00 00 00 18 00 00",
        "MODE SENSE(6)": "1a 00 3f 00 ff 00",
        "MODE SENSE(10)": "5a 00 3f 00 00 00 00 00 ff 00",
        "PRE-FETCH": "34 00 00 00 00 00 00 00 01 00",
        "READ(6)": "08 00 00 00 01 00",
        "READ(10)": "28 00 00 00 00 00 00 00 01 00",
        "READ(12)": "a8 00 00 00 00 00 00 00 00 01 00 00",
        "READ(16)": "88 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00",
        "READ BUFFER": "3c 03 00 00 00 00 00 00 04 00",
        "READ DEFECT DATA": "37 00 18 00 00 00 00 00 08 00",
        "RECEIVE DIAGNOSTIC RESULTS": "1c 00 00 00 ff 00",
        "REPORT SUPPORTED OPERATION CODES": "a3 0c 00 00 00 00 00 00 00 ff 00 00",
        "VERIFY(10)": "2f 00 00 00 00 00 00 00 01 00",
    },
    "CCACC": {
        "COMPARE AND WRITE": "89 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
        "FORMAT UNIT": "04 08 00 00 00 00",
        "LOG SELECT": "4c 00 00 00 00 00 00 00 00 00",
        "MODE SELECT(6)": "15 10 00 00 00 00",
        "MODE SELECT(10)": "55 10 00 00 00 00 00 00 00 00",
        "ORWRITE": "8b 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
        "PREVENT ALLOW 1": "1e 00 00 00 01 00",
        "REASSIGN BLOCKS": "07 00 00 00 00 00",
        "SANITIZE": "48 1f 00 00 00 00 00 00 00 00",
        "SEND DIAGNOSTIC": "1d 04 00 00 00 00",
        "SET IDENTIFYING INFORMATION": "a4 06 00 00 00 00 00 00 00 00 00 00",
        "SET TARGET PORT GROUPS": "a4 0a 00 00 00 00 00 00 00 00 00 00",
        "SET TIMESTAMP": "a4 0f 00 00 00 00 00 00 00 00 00 00",
        "START STOP UNIT START=0": "1b 00 00 00 00 00",
        "START STOP UNIT PC=3": "1b 00 00 00 31 00",
        "SYNCHRONIZE CACHE": "35 00 00 00 00 00 00 00 00 00",
        "UNMAP": "42 00 00 00 00 00 00 00 00 00",
        "WRITE(6)": "0a 00 00 00 00 00",
        "WRITE(10)": "2a 00 00 00 00 00 00 00 00 00",
        "WRITE(12)": "aa 00 00 00 00 00 00 00 00 00 00 00",
        "WRITE(16)": "8a 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
        "WRITE AND VERIFY": "2e 00 00 00 00 00 00 00 00 00",
        "WRITE ATOMIC": "9c 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
        "WRITE BUFFER": "3b 02 00 00 00 00 00 00 00 00",
        "WRITE SAME(10)": "41 00 00 00 00 00 00 00 01 00",
    },
}
COLUMNS = ((WE, False), (EA, False), (WE_RO, True), (WE_RO, False), (EA_AR, False))


@pytest.mark.parametrize(
    ("verdicts", "name", "cdb"),
    [
        (verdicts, name, cdb)
        for verdicts, commands in TABLE.items()
        for name, cdb in commands.items()
        if cdb is not None
    ],
)
def test_the_conflict_table(
    join: Callable[..., Member], verdicts: str, name: str, cdb: str
) -> None:
    holder, other = join("holder", 1), join("other")
    for verdict, (kind, registered) in zip(verdicts, COLUMNS, strict=True):
        assert holder.reserve(kind) is GOOD
        if registered:
            other.register(2)
        status = other(bytes.fromhex(cdb)).status
        assert (status is CONFLICT) == (verdict == "C"), (name, kind, registered, status)
        if registered:
            assert other.out(REGISTER).status is GOOD
            other.key = 0
        attention(holder)  # what was let through may have changed something
        assert holder.out(RELEASE, kind=kind).status is GOOD


@pytest.mark.parametrize("kind", TYPES)
def test_who_may_read_and_write_under_each_type(join: Callable[..., Member], kind: int) -> None:
    holder, member, stranger = join("holder", 1), join("member", 2), join("stranger")
    assert holder.reserve(kind) is GOOD
    admits, exclusive = kind >= WE_RO, kind in (EA, 6, EA_AR)
    assert (holder.reads(), holder.writes()) == (True, True)
    assert (member.reads(), member.writes()) == (admits or not exclusive, admits)
    assert (stranger.reads(), stranger.writes()) == (not exclusive, False)
    assert holder.reservation() == (0 if kind in (WE_AR, EA_AR) else 1, kind)


# Registering


def test_register_wants_the_present_key(join: Callable[..., Member]) -> None:
    one = join("one")
    assert one.out(REGISTER, key=7, new=1).status is CONFLICT
    assert one.out(REGISTER).status is GOOD  # zero for zero does nothing
    assert one.keys() == []
    one.register(0x1122334455667788)
    assert one.report(0) == bytes.fromhex("00000002 00000008 1122334455667788")
    assert one.out(REGISTER, key=1, new=2).status is CONFLICT
    assert one.out(IGNORE, key=99, new=3).status is GOOD
    assert one.keys() == [3]


def test_unregistering_the_holder_releases_and_tells_registrants(
    join: Callable[..., Member],
) -> None:
    one, two = join("one", 1), join("two", 2)
    assert one.reserve(WE_RO) is GOOD
    assert one.out(REGISTER).status is GOOD
    assert attention(two) is Asc.RESERVATIONS_RELEASED
    assert two.reservation() is None
    assert two.keys() == [2]
    assert attention(one) is None


def test_all_registrants_hold_until_the_last_is_gone(join: Callable[..., Member]) -> None:
    one, two = join("one", 1), join("two", 2)
    assert one.reserve(EA_AR) is GOOD
    assert one.out(REGISTER).status is GOOD
    assert two.reservation() == (0, EA_AR)
    assert two.out(REGISTER).status is GOOD
    assert two.reservation() is None


def test_specified_initiator_ports_are_registered_too(join: Callable[..., Member]) -> None:
    one, two = join("one"), join("two")
    names = transport_id("two")
    more = len(names).to_bytes(4, "big") + names
    assert one.out(REGISTER, new=5, flags=SPEC_I_PT, more=more).status is GOOD
    assert two.keys() == [5, 5]
    two.key = 5
    assert two.reserve(WE) is GOOD
    assert one.out(IGNORE, new=6, flags=SPEC_I_PT, more=more).status is not GOOD
    assert one.out(REGISTER, new=7, flags=SPEC_I_PT, more=more[:9]).sense is not None


def test_all_target_ports(join: Callable[..., Member]) -> None:
    one, through_two = join("one"), join("one", port=2)
    assert one.out(REGISTER, new=5, flags=ALL_TG_PT).status is GOOD
    one.key = through_two.key = 5
    assert through_two.reserve(EA) is GOOD
    assert not one.writes()
    status = one.report(3)
    name = transport_id("one")
    assert status == (
        bytes.fromhex("00000001")
        + (24 + len(name)).to_bytes(4, "big")
        + bytes.fromhex("0000000000000005 00000000 03 03 00000000 0002")
        + len(name).to_bytes(4, "big")
        + name
    )


def test_a_reservation_is_of_a_nexus_and_not_of_an_initiator(join: Callable[..., Member]) -> None:
    one, through_two = join("one", 1), join("one", port=2)
    assert one.reserve(EA) is GOOD
    assert not through_two.reads()


# Reserving and releasing


def test_reserve(join: Callable[..., Member]) -> None:
    one, two, stranger = join("one", 1), join("two", 2), join("stranger")
    assert stranger.reserve(WE) is CONFLICT
    assert one.out(RESERVE, kind=WE, key=9).status is CONFLICT
    assert one.out(RESERVE, kind=2).sense.asc is Asc.INVALID_FIELD_IN_CDB  # type: ignore[union-attr]
    assert one.out(RESERVE, kind=WE, scope=1).status is Status.CHECK_CONDITION
    assert one.reserve(WE) is GOOD
    assert one.reserve(WE) is GOOD
    assert one.reserve(EA) is CONFLICT
    assert two.reserve(WE) is CONFLICT
    generation = one.report(0)[:4]
    assert generation == bytes((0, 0, 0, 2))  # only registrations have counted


def test_release(join: Callable[..., Member]) -> None:
    one, two = join("one", 1), join("two", 2)
    assert one.out(RELEASE, kind=WE).status is GOOD
    assert one.reserve(WE) is GOOD
    assert two.out(RELEASE, kind=WE).status is GOOD
    assert one.reservation() == (1, WE)
    wrong = one.out(RELEASE, kind=EA)
    assert wrong.sense == Sense(
        SenseKey.ILLEGAL_REQUEST, Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION
    )
    assert one.out(RELEASE, kind=WE).status is GOOD
    assert one.reservation() is None
    assert attention(two) is None  # of these types nobody is told
    assert one.reserve(WE_AR) is GOOD
    assert two.out(RELEASE, kind=WE_AR).status is GOOD
    assert attention(one) is Asc.RESERVATIONS_RELEASED


def test_clear(join: Callable[..., Member]) -> None:
    one, two = join("one", 1), join("two", 2)
    assert one.reserve(EA) is GOOD
    assert two.out(CLEAR).status is GOOD
    assert (two.keys(), two.reservation()) == ([], None)
    assert attention(one) is Asc.RESERVATIONS_PREEMPTED
    assert attention(two) is None


# Preempting


def test_preempting_the_holder(join: Callable[..., Member]) -> None:
    one, two, three = join("one", 1), join("two", 2), join("three", 3)
    assert one.reserve(EA) is GOOD
    assert two.out(PREEMPT, kind=WE_RO, new=1).status is GOOD
    assert two.reservation() == (2, WE_RO)
    assert two.keys() == [2, 3]
    assert attention(one) is Asc.REGISTRATIONS_PREEMPTED
    assert attention(three) is Asc.RESERVATIONS_RELEASED
    assert attention(two) is None
    assert not one.writes()
    assert three.writes()


def test_preempting_one_who_holds_nothing_only_removes_registrations(
    join: Callable[..., Member],
) -> None:
    one, two, three = join("one", 1), join("two", 2), join("three", 2)
    assert one.reserve(WE) is GOOD
    assert one.out(PREEMPT, kind=EA, new=2).status is GOOD
    assert (one.keys(), one.reservation()) == ([1], (1, WE))
    assert attention(two) is attention(three) is Asc.REGISTRATIONS_PREEMPTED
    assert one.out(PREEMPT, kind=EA, new=2).status is CONFLICT
    assert one.out(PREEMPT, kind=EA).sense.asc is Asc.INVALID_FIELD_IN_PARAMETER_LIST  # type: ignore[union-attr]


def test_preempting_all_registrants_with_key_zero(join: Callable[..., Member]) -> None:
    one, two, three = join("one", 1), join("two", 2), join("three", 3)
    assert one.reserve(WE_AR) is GOOD
    assert two.out(PREEMPT, kind=WE, new=3).status is GOOD  # a registration, not the reservation
    assert two.reservation() == (0, WE_AR)
    assert two.out(PREEMPT, kind=WE).status is GOOD
    assert (two.keys(), two.reservation()) == ([2], (2, WE))
    assert attention(one) is attention(three) is Asc.REGISTRATIONS_PREEMPTED


def test_a_holder_may_preempt_itself(join: Callable[..., Member]) -> None:
    one = join("one", 1)
    assert one.reserve(WE) is GOOD
    assert one.out(PREEMPT, kind=EA, new=1).status is GOOD
    assert (one.keys(), one.reservation()) == ([1], (1, EA))


def test_preempt_and_abort_ends_the_commands_of_the_preempted(
    unit: BlockUnit, join: Callable[..., Member]
) -> None:
    one, two = join("one", 1), join("two", 2)
    ended: list[object] = []
    unit.abort_commands = ended.append
    assert one.reserve(EA) is GOOD
    assert two.out(PREEMPT_AND_ABORT, kind=EA, new=1).status is GOOD
    assert ended == [{one.nexus}]
    assert two.out(PREEMPT, kind=EA, new=2).status is GOOD
    assert len(ended) == 1


# Moving


def test_register_and_move(join: Callable[..., Member]) -> None:
    one, two = join("one", 1), join("two")
    assert one.move("two", 7, kind=WE).status is CONFLICT  # nothing to move
    assert one.reserve(WE) is GOOD
    assert one.move("two", 7, kind=EA).status is Status.CHECK_CONDITION
    assert one.move("two", 0, kind=WE).status is Status.CHECK_CONDITION
    assert one.move("two", 7, kind=WE, port=9).status is Status.CHECK_CONDITION
    assert one.move("one", 7, kind=WE).status is Status.CHECK_CONDITION
    assert one.move("two", 7, kind=WE, flags=2).status is GOOD
    assert (two.keys(), two.reservation()) == ([7], (7, WE))
    assert two.writes()
    assert not one.writes()


def test_what_all_registrants_hold_is_not_moved(join: Callable[..., Member]) -> None:
    one = join("one", 1)
    assert one.reserve(WE_AR) is GOOD
    assert one.move("two", 7, kind=WE_AR).status is CONFLICT


# Loss of power, resets, lost nexuses


def test_without_aptpl_a_restart_forgets_and_with_it_not(tmp_path: Path) -> None:
    for flags in (0, APTPL):
        disk = open_disk(tmp_path)
        one = Member(disk, "one")
        one.register(1, flags)
        assert one.reserve(EA) is GOOD
        assert one.report(2)[3] == 0xC0 | flags
        disk.close()
        again = open_disk(tmp_path)
        survivor, other = Member(again, "one"), Member(again, "other")
        assert survivor.keys() == [1] * flags
        assert survivor.reservation() == ((1, EA) if flags else None)
        assert other.writes() is not bool(flags)
        assert survivor.report(0)[:4] == bytes(4)  # PRgeneration begins anew
        again.close()


def test_the_last_aptpl_counts(tmp_path: Path) -> None:
    disk = open_disk(tmp_path)
    one = Member(disk, "one")
    one.register(1, APTPL)
    one.register(2)
    disk.close()
    assert Member(open_disk(tmp_path), "one").keys() == []


def test_aptpl_is_refused_where_nothing_can_be_kept(tmp_path: Path) -> None:
    one = Member(BlockUnit("d", open_file_store(tmp_path / "d", 1 << 20)), "one")
    assert one.out(REGISTER, new=1, flags=APTPL).status is Status.CHECK_CONDITION
    assert one.report(2) == bytes.fromhex("0008 1c c0 ea01 0000")


def test_what_cannot_be_kept_is_not_done(unit: BlockUnit, join: Callable[..., Member]) -> None:
    one = join("one")
    one.register(1, APTPL)
    assert unit.state is not None
    unit.state.path = unit.state.path / "not" / "there"
    assert one.reserve(EA) is Status.CHECK_CONDITION
    assert one.reservation() is None


def test_persistent_reservations_outlive_resets_and_lost_nexuses(
    unit: BlockUnit, join: Callable[..., Member]
) -> None:
    one, two = join("one", 1), join("two")
    assert one.reserve(EA) is GOOD
    unit.reset()
    unit.detach(one.nexus)
    two(bytes(6))
    assert not two.reads()
    assert two.keys() == [1]


# RESERVE and RELEASE


@pytest.mark.parametrize(("reserve", "release"), [("16", "17"), ("56", "57")])
def test_reserve_and_release(
    unit: BlockUnit, join: Callable[..., Member], reserve: str, release: str
) -> None:
    one, two = join("one"), join("two")
    long = bytes(9 if reserve == "56" else 5)
    one.good(bytes.fromhex(reserve) + long)
    one.good(bytes.fromhex(reserve) + long)
    assert two(bytes.fromhex(reserve) + long).status is CONFLICT
    two.good(bytes.fromhex(release) + long)
    assert (one.writes(), two.reads(), two.writes()) == (True, False, False)
    assert two(bytes(6)).status is CONFLICT
    two.good(bytes.fromhex("12 00 00 00 24 00"))
    one.good(bytes.fromhex(release) + long)
    assert two.writes()
    two.good(bytes.fromhex(reserve) + long)
    unit.detach(two.nexus)
    assert one.writes()
    one.good(bytes.fromhex(reserve) + long)
    unit.reset()
    two(bytes(6))
    assert two.writes()


def test_reserve_beside_persistent_reservations(join: Callable[..., Member]) -> None:
    one, two = join("one", 1), join("two")
    reserve = bytes.fromhex("16 00 00 00 00 00")
    assert two(reserve).status is CONFLICT
    assert one(reserve).status is CONFLICT  # registered, but holds nothing (5.13.3)
    assert one.reserve(WE) is GOOD
    one.good(reserve)
    one.good(bytes.fromhex("17 00 00 00 00 00"))
    assert one.reservation() == (1, WE)
