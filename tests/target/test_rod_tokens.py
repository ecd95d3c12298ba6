"""ROD tokens of disks: SBC-4 5.12, 5.59, SPC-4 5.17.6, lists and responses set by hand."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serverfree.datamover.copies import Copy
from serverfree.datamover.rod_tokens import RodTokens
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.status import Status
from serverfree.target.units.permission import Permission
from serverfree.target.units.rod_medium import RodMedium
from support.copies import noise
from support.disk import OTHER
from support.rods import (
    ALL_TOKENS,
    ANY,
    DEFAULT,
    PERSISTENT,
    POPULATE,
    REFERENCE,
    SIZE,
    TARGET,
    VULNERABLE,
    WRITE_USING,
    ZERO,
    Information,
    San,
    information,
    originate,
    populate_list,
    write_list,
)


@pytest.fixture
def san(tmp_path: Path) -> Iterator[San]:
    made = San(tmp_path)
    yield made
    made.close()


# ---------------------------------------------------------------------- tokens


def test_a_token_has_the_bytes_of_its_table(san: San) -> None:
    disk = san.disk("a")
    token = disk.populate((3, 4), (100, 2), rod_type=PERSISTENT)
    assert len(token) == 512
    assert token[:8] == bytes.fromhex("00800002 0000 01f8")
    assert token[16:20] == bytes.fromhex("e4 00 0000")  # the CSCD descriptor of the disk
    assert token[20:24] == bytes.fromhex("01 03 00 08")
    assert token[24:32] == disk.unit.designator.identifier
    assert token[40:48] == bytes.fromhex("00000000 00 000200")
    assert token[48:64] == (6 * 512).to_bytes(16, "big")
    assert token[64:96] == bytes(32)
    capacity = disk.host.good(bytes.fromhex("9e10 0000000000000000 00000020 0000"))
    assert token[96:120] == capacity[8:32]
    assert token[128:132] == bytes.fromhex("03 28 00 1c")  # SCSI name string of the target
    assert token[132:160] == TARGET.encode().ljust(28, b"\0")
    assert len(set(token[256:])) > 100  # hard to guess


def test_identifiers_and_secrets_are_never_alike(san: San) -> None:
    disk = san.disk("a")
    tokens = [disk.populate((0, 1), identifier=n) for n in range(20)]
    assert len({token[8:16] for token in tokens}) == 20
    assert len({token[256:] for token in tokens}) == 20


def test_what_populate_token_answers(san: San) -> None:
    disk = san.disk("a", block_size=4096)
    parameters = populate_list((0, 5), (9, 3))
    disk.host.good(originate(POPULATE, 0x01020304, len(parameters)), parameters)
    raw = disk.host.good(information(0x01020304))
    assert raw[4:8] == bytes.fromhex("10 01 0000")
    assert raw[8:12] == bytes.fromhex("fffffffe")  # it is done
    assert raw[15:26] == bytes.fromhex("f1 0000000000000008 0000")
    assert len(raw) == 36 + 514
    again = Information(disk.host.good(information(0x01020304)))
    assert again.tokens == []  # handed out once


@pytest.mark.parametrize("rod_type", [None, DEFAULT, VULNERABLE, PERSISTENT, ANY])
def test_a_point_in_time_outlives_writes_where_the_store_keeps_it(san: San, rod_type) -> None:
    source, copy = san.disk("a"), san.disk("b")
    before = source.content
    token = source.populate((10, 20), (100, 50), (5, 1), rod_type=rod_type)
    expected = before[5120:15360] + before[51200:76800] + before[2560:3072]
    made = int.from_bytes(token[:4], "big")
    assert made == {None: VULNERABLE, ANY: PERSISTENT}.get(rod_type, rod_type)
    if made != VULNERABLE:
        source.put(0, noise(SIZE // 2, 9))
    reply = copy.write_using(token, (200, 71))
    assert reply.status is Status.GOOD
    assert copy.content[200 * 512 : 271 * 512] == expected
    answer = Information(copy.host.good(information(8)))
    assert (answer.action, answer.status, answer.units, answer.count) == (0x11, 1, 0xF1, 71)
    assert answer.tokens == []


def test_a_write_ends_a_change_vulnerable_token(san: San) -> None:
    source, copy = san.disk("a", keeps=False), san.disk("b")
    token = source.populate((10, 20), rod_type=VULNERABLE)
    spared = source.populate((40, 2))
    assert int.from_bytes(spared[:4], "big") == VULNERABLE
    source.put(9 * 512, bytes(512))
    assert copy.write_using(token, (0, 20)).status is Status.GOOD
    source.put(29 * 512, bytes(512))
    before = copy.content
    sense = copy.refused(WRITE_USING, write_list(token, (0, 20)))
    assert (sense.key, sense.asc) == (5, 0x2308)
    assert copy.content == before
    assert copy.write_using(spared, (0, 2)).status is Status.GOOD


@pytest.mark.parametrize(
    "change",
    [
        bytes.fromhex("93 08 000000000000000c 00000001 0000"),  # WRITE SAME(16)
        bytes.fromhex("89 00 000000000000000c 00000001 0000"),  # COMPARE AND WRITE
    ],
)
def test_every_path_of_change_ends_it(san: San, change: bytes) -> None:
    source, copy = san.disk("a", keeps=False), san.disk("b")
    token = source.populate((10, 20))
    block = source.content[12 * 512 : 13 * 512]
    data = block + noise(512) if change[0] == 0x89 else noise(512)
    change = change[:1] + (b"\0" if change[0] == 0x93 else change[1:2]) + change[2:]
    source.host.good(change, data)
    assert copy.refused(WRITE_USING, write_list(token, (0, 20))).asc == 0x2308


def test_a_disk_without_memory_offers_no_more_than_it_can_keep(san: San) -> None:
    disk = san.disk("a", keeps=False)
    for rod_type in (DEFAULT, PERSISTENT):
        sense = disk.refused(POPULATE, populate_list((0, 1), rod_type=rod_type))
        assert (sense.key, sense.asc, sense.pointer.byte) == (5, 0x2600, 8)
    page = disk.host.good(bytes.fromhex("12 01 8f ffff 00"))
    assert rod_types(page) == {
        0: 0x80,
        REFERENCE: 0x83,
        DEFAULT: 0x02,
        VULNERABLE: 0x83,
        PERSISTENT: 0x02,
        ANY: 0x81,
        ZERO: 0x02,
    }
    kept = san.disk("b").host.good(bytes.fromhex("12 01 8f ffff 00"))
    assert rod_types(kept)[PERSISTENT] == rod_types(kept)[DEFAULT] == 0x83


def rod_types(page: bytes) -> dict[int, int]:
    at = page.index(bytes.fromhex("0108"), 4)
    body = page[at + 8 : at + 8 + int.from_bytes(page[at + 6 : at + 8], "big")]
    return {int.from_bytes(body[n : n + 4], "big"): body[n + 4] for n in range(0, len(body), 64)}


def test_a_read_only_disk_never_changes(san: San) -> None:
    source, copy = san.disk("a", keeps=False, readonly=True), san.disk("b")
    token = source.populate((0, 4), rod_type=PERSISTENT)
    assert copy.write_using(token, (7, 4)).status is Status.GOOD
    assert copy.content[7 * 512 : 11 * 512] == source.content[:2048]
    sense = source.refused(WRITE_USING, write_list(token, (0, 4)))
    assert (sense.key, sense.asc) == (7, 0x2700)


def test_another_initiator_may_use_it_and_see_what_it_could_not(san: San) -> None:
    source, copy = san.disk("a"), san.disk("b")
    san.permissions[OTHER, source.unit] = None  # not even there for it
    token = source.populate((0, 4))
    assert copy.write_using(token, (0, 4), host=copy.other).status is Status.GOOD
    assert copy.content[:2048] == source.content[:2048]


def test_who_may_only_read_writes_nothing(san: San) -> None:
    source, copy = san.disk("a"), san.disk("b")
    copy.unit.permit(OTHER, Permission(read_only=True))
    san.permissions[OTHER, copy.unit] = Permission(read_only=True)
    token = source.populate((0, 4))
    before = copy.content
    sense = copy.refused(WRITE_USING, write_list(token, (0, 4)), copy.other)
    assert (sense.key, sense.asc) == (7, 0x2700)
    assert copy.content == before


@pytest.mark.parametrize("kind", [1, 3, 6])  # write exclusive, exclusive access, registrants only
def test_who_holds_a_reservation_writes_with_a_token_and_nobody_else(san: San, kind: int) -> None:
    source, copy = san.disk("a"), san.disk("b")
    token = source.populate((0, 4))
    key = bytes(7) + b"K"
    copy.host.good(bytes.fromhex("5f 00 00 0000 00000018 00"), bytes(8) + key + bytes(8))
    copy.host.good(bytes([0x5F, 1, kind]) + bytes.fromhex("0000 00000018 00"), key + bytes(16))
    assert copy.write_using(token, (0, 4)).status is Status.GOOD
    assert copy.content[:2048] == source.content[:2048]
    refused = copy.write_using(token, (9, 4), host=copy.other)
    assert refused.status is Status.RESERVATION_CONFLICT
    parameters = populate_list((0, 4))
    cdb = originate(POPULATE, 5, len(parameters))
    reads = copy.other(cdb, parameters).status
    assert reads is (Status.RESERVATION_CONFLICT if kind in (3, 6) else Status.GOOD)
    assert not copy.unit.reservations.stand_ins


# ---------------------------------------------------------------------- WRITE USING TOKEN


@pytest.mark.parametrize(("source_size", "size"), [(512, 4096), (4096, 512), (512, 512)])
def test_offset_counts_blocks_of_the_unit_that_is_written(san: San, source_size, size) -> None:
    source = san.disk("a", block_size=source_size)
    copy = san.disk("b", block_size=size)
    ranges = [(8, 16), (40, 8)]
    token = source.populate(*ranges)
    stream = b"".join(
        source.content[lba * source_size : (lba + n) * source_size] for lba, n in ranges
    )
    before = copy.content
    assert copy.write_using(token, (3, 1), (1, 1), offset=1).status is Status.GOOD
    after = copy.content
    assert after[3 * size : 4 * size] == stream[size : 2 * size]
    assert after[size : 2 * size] == stream[2 * size : 3 * size]
    assert after[:size] + after[2 * size : 3 * size] + after[4 * size :] == (
        before[:size] + before[2 * size : 3 * size] + before[4 * size :]
    )


def test_a_token_that_runs_out_says_how_far_it_went(san: San) -> None:
    source, copy = san.disk("a"), san.disk("b", block_size=4096)
    token = source.populate((0, 20))  # two and a half blocks of the other
    before = copy.content
    parameters = write_list(token, (5, 1), (0, 4))
    sense = copy.refused(WRITE_USING, parameters)
    assert (sense.key, sense.asc, sense.information) == (0x0B - 1, 0x0D04, 3)
    stream = source.content[: 20 * 512] + bytes(2048)
    after = copy.content
    assert after[5 * 4096 : 6 * 4096] == stream[:4096]
    assert after[: 2 * 4096] == stream[4096:]
    assert after[2 * 4096 : 5 * 4096] == before[2 * 4096 : 5 * 4096]
    answer = Information(copy.host.good(information(9)))
    assert (answer.status, answer.completion, answer.count) == (3, 2, 3)
    assert answer.sense[2] & 0x0F == 0x0A
    assert answer.sense[12:14] == bytes.fromhex("0d04")


@pytest.mark.parametrize("thin", [False, True])
def test_zeros(san: San, thin: bool) -> None:
    disk = san.disk("a", thin=thin)
    token = ZERO.to_bytes(4, "big") + bytes(2) + bytes.fromhex("01f8") + bytes(504)
    before = disk.content
    assert disk.write_using(token, (3, 100), (200, 1), offset=99).status is Status.GOOD
    after = disk.content
    assert not any(after[3 * 512 : 103 * 512])
    assert not any(after[200 * 512 : 201 * 512])
    assert after[: 3 * 512] == before[: 3 * 512]
    assert after[103 * 512 : 200 * 512] == before[103 * 512 : 200 * 512]
    answer = Information(disk.host.good(information(8)))
    assert (answer.status, answer.units, answer.count) == (1, 0xF1, 101)
    disk.unit.software_write_protect = True
    assert disk.refused(WRITE_USING, write_list(token, (0, 1))).asc == 0x2700


def test_zeros_for_a_large_disk_are_not_written_one_by_one(san: San) -> None:
    size = 64 << 30
    disk = san.disk("large", thin=True, size=size)
    disk.put(size // 2, noise(4096))
    token = ZERO.to_bytes(4, "big") + bytes(2) + bytes.fromhex("01f8") + bytes(504)
    half = size // 1024
    began = time.monotonic()
    assert disk.write_using(token, (half, half), (0, half)).status is Status.GOOD
    assert time.monotonic() - began < 20  # 64 GiB of zeros as data take longer on any machine
    assert disk.unit.store.pread(size // 2, 4096) == bytes(4096)
    assert Information(disk.host.good(information(8))).count == 2 * half


def test_immediate_goes_on_behind_good(san: San) -> None:
    source, copy = san.disk("a"), san.disk("b")
    token = source.populate((0, 64), flags=1)
    assert copy.write_using(token, (64, 64), flags=1).status is Status.GOOD
    for _ in range(1000):
        answer = Information(copy.host.good(information(8)))
        if answer.status not in (0x10, 0x11, 0x12):
            break
    assert (answer.status, answer.count) == (1, 64)
    assert copy.content[64 * 512 : 128 * 512] == source.content[: 64 * 512]


def test_a_medium_that_fails_ends_it_with_what_is_written(san: San) -> None:
    source, copy = san.disk("a"), san.disk("b")
    token = source.populate((0, 64))
    copy.unit.stopped = True
    sense = copy.refused(WRITE_USING, write_list(token, (0, 64)))
    assert (sense.key, sense.asc) == (2, 0x0402)


# ---------------------------------------------------------------------- how they end


def test_a_deleted_token_is_gone_when_the_command_is(san: San) -> None:
    source, copy = san.disk("a"), san.disk("b")
    token = source.populate((0, 4), rod_type=PERSISTENT)
    assert len(source.unit.store.snapshots()) == 1
    assert copy.write_using(token, (0, 4), flags=2).status is Status.GOOD
    assert copy.content[:2048] == source.content[:2048]
    assert copy.refused(WRITE_USING, write_list(token, (0, 4))).asc == 0x2309
    assert source.unit.store.snapshots() == []


def test_a_command_that_is_refused_deletes_nothing(san: San) -> None:
    source, copy = san.disk("a"), san.disk("b")
    token = source.populate((0, 4))
    assert copy.refused(WRITE_USING, write_list(token, (0, 4), offset=4, flags=2)).asc == 0x2600
    assert copy.write_using(token, (0, 4)).status is Status.GOOD


def test_an_idle_token_expires_and_use_keeps_it(san: San) -> None:
    source, copy = san.disk("a"), san.disk("b")
    token = source.populate((0, 4), inactivity=30, rod_type=PERSISTENT)
    for _ in range(3):
        san.clock.now += 29.9
        assert copy.write_using(token, (0, 4)).status is Status.GOOD
    assert len(source.unit.store.snapshots()) == 1
    san.clock.now += 30
    assert copy.refused(WRITE_USING, write_list(token, (0, 4))).asc == 0x2307
    assert source.unit.store.snapshots() == []


def test_zero_is_the_default_time_and_the_lifetime_ends_the_busiest(tmp_path: Path) -> None:
    san = San(tmp_path, default_inactivity=10, maximum_lifetime=100, minimum_lifetime=1)
    try:
        source, copy = san.disk("a"), san.disk("b")
        lazy, busy = source.populate((0, 4)), source.populate((0, 4), inactivity=50, identifier=6)
        for _ in range(9):
            san.clock.now += 11
            assert copy.write_using(busy, (0, 4)).status is Status.GOOD
        assert copy.refused(WRITE_USING, write_list(lazy, (0, 4))).asc == 0x2307
        san.clock.now += 1
        assert copy.refused(WRITE_USING, write_list(busy, (0, 4))).asc == 0x2307
    finally:
        san.close()


def test_there_are_only_so_many(tmp_path: Path) -> None:
    san = San(tmp_path, tokens=2)
    try:
        disk = san.disk("a")
        first = disk.populate((0, 1))
        disk.populate((0, 1), identifier=8)
        assert disk.refused(POPULATE, populate_list((0, 1))).asc == 0x550C
        assert disk.write_using(first, (9, 1), flags=2, identifier=5).status is Status.GOOD
        disk.populate((0, 1), identifier=4)
    finally:
        san.close()


def test_people_have_room_for_snapshots(san: San) -> None:
    disk = san.disk("a")
    for number in range(16):
        disk.populate((0, 1), identifier=number, rod_type=PERSISTENT)
    assert disk.refused(POPULATE, populate_list((0, 1), rod_type=DEFAULT)).asc == 0x550C
    disk.populate((0, 1))  # what needs none can be had
    disk.unit.store.create("weekly", quiet=0)


def test_a_restart_leaves_no_snapshots_behind(san: San, tmp_path: Path) -> None:
    disk = san.disk("a")
    disk.populate((0, 1), rod_type=PERSISTENT)
    kept = disk.unit.store.create("weekly", quiet=0)
    assert len(disk.unit.store.snapshots()) == 2
    RodMedium(disk.unit)  # as the next process does
    assert [one.name for one in disk.unit.store.snapshots()] == [kept.name]


# ---------------------------------------------------------------------- what is refused


def altered(token: bytes, at: int, value: bytes) -> bytes:
    return token[:at] + value + token[at + len(value) :]


def test_tokens_that_are_none(san: San, tmp_path: Path) -> None:
    disk = san.disk("a")
    token = disk.populate((0, 1))
    elsewhere = San(tmp_path)
    elsewhere.tokens = RodTokens("iqn.2026-11.com.example:other", clock=elsewhere.clock)
    (tmp_path / "x").mkdir()
    foreign = elsewhere.disk("x/c").populate((0, 1))
    for wrong, asc in (
        (altered(token, 6, b"\x01\xf9"), 0x230A),
        (altered(token, 0, bytes.fromhex("00800003")), 0x2301),
        (altered(token, 0, bytes(4)), 0x2301),
        (altered(token, 16, b"\xe5"), 0x2305),
        (foreign, 0x2302),
        (altered(token, 511, bytes([token[511] ^ 1])), 0x2304),
        (altered(token, 8, bytes(8)), 0x2304),
        (altered(token, 0, bytes.fromhex("00800002")), 0x2304),
    ):
        sense = disk.refused(WRITE_USING, write_list(wrong, (0, 1)))
        assert (sense.key, sense.asc) == (5, asc), wrong[:16].hex()
    elsewhere.close()


@pytest.mark.parametrize(
    ("parameters", "asc", "at"),
    [
        (populate_list((0, 1))[:15], 0x1A00, None),
        (b"\x00\x1d" + populate_list((0, 1))[2:], 0x2600, 0),
        (populate_list((0, 1))[:14] + b"\0\x0f" + bytes(16), 0x2600, 14),
        (populate_list((0, 1), inactivity=86401), 0x2600, 4),
        (populate_list((0, 1), rod_type=REFERENCE), 0x2600, 8),
        (populate_list((0, 1), rod_type=ZERO), 0x2600, 8),
        (populate_list((0, 1), rod_type=0x00800003), 0x2600, 8),
        (populate_list((3, 4), (20, 5), (24, 1)), 0x2600, 48),
        (populate_list((20, 5), (3, 18)), 0x2600, 32),
        (populate_list((0, 1), (510, 3)), 0x2100, 32),
        (populate_list(*[(n, 0) for n in range(1025)]), 0x2608, 14),
    ],
)
def test_populate_lists_that_cannot_be(san: San, parameters: bytes, asc: int, at) -> None:
    sense = san.disk("a").refused(POPULATE, parameters)
    assert (sense.key, sense.asc) == (5, asc)
    assert (sense.pointer and sense.pointer.byte) == at


def test_write_lists_that_cannot_be(san: San) -> None:
    disk = san.disk("a")
    token = disk.populate((0, 8))
    good = write_list(token, (0, 1))
    for parameters, asc, at in (
        (good[:100], 0x1A00, None),
        (b"\x02\x25" + good[2:], 0x2600, 0),
        (b"\x02\x36" + good[2:], 0x2600, 0),
        (write_list(token, (0, 1), offset=8), 0x2600, 8),
        (write_list(token, (0, 5), (4, 1)), 0x2600, 552),
        (write_list(token, (511, 2)), 0x2100, 536),
        (write_list(token, *[(n, 0) for n in range(1025)]), 0x2608, 534),
    ):
        sense = disk.refused(WRITE_USING, parameters)
        assert (sense.key, sense.asc) == (5, asc)
        assert (sense.pointer and sense.pointer.byte) == at


def test_a_range_in_part_and_ranges_of_nothing_are_passed_over(san: San) -> None:
    disk = san.disk("a")
    parameters = populate_list((5, 2), (9, 0), (7, 1))
    cut = len(parameters) - 1
    disk.host.good(originate(POPULATE, 7, cut), parameters[:cut])
    assert Information(disk.host.good(information(7))).count == 2


def test_no_list_is_no_error(san: San) -> None:
    disk = san.disk("a")
    disk.host.good(originate(POPULATE, 7, 0))
    disk.host.good(originate(WRITE_USING, 7, 0))
    assert disk.host.sense(information(7)).asc == 0x2400


def test_identifiers_are_those_of_copies(san: San) -> None:
    disk = san.disk("a")
    parameters = populate_list((0, 1))
    disk.host.good(originate(POPULATE, 1, len(parameters)), parameters)
    sense = disk.other.sense(information(1))
    assert (sense.key, sense.asc, sense.pointer.byte) == (5, 0x2400, 2)
    disk.host.good(information(1, 0))  # declined
    assert Information(disk.host.good(information(1))).tokens == []


@pytest.mark.parametrize("lid4", [False, True])
def test_an_identifier_that_a_token_command_has_is_in_use(san: San, lid4: bool) -> None:
    """Only EXTENDED COPY has two formats that exclude each other (SPC-4 5.17.4.2, 6.4.3.2)."""
    disk = san.disk("a")
    copies = disk.unit.copy_manager._copies  # type: ignore[union-attr]
    running = Copy(ListIdUsage.HOLD, POPULATE)
    copies.admit(disk.host.nexus, 9, running)
    parameters = CopyList(list_identifier=9, lid4=lid4).pack()
    cdb = bytes([0x83, lid4]) + bytes(8) + len(parameters).to_bytes(4, "big") + bytes(2)
    sense = disk.host.sense(cdb, parameters)
    assert (sense.key, sense.asc) == (5, 0x0016)


# ---------------------------------------------------------------------- what is told


def test_all_tokens_without_what_makes_them_hard_to_guess(san: San) -> None:
    one, other = san.disk("a"), san.disk("b")
    tokens = [one.populate((0, 1)), one.populate((5, 9), identifier=8)]
    other.populate((0, 1))
    raw = one.host.good(ALL_TOKENS)
    assert raw[:8] == (4 + 192).to_bytes(4, "big") + bytes(4)
    assert raw[8:] == tokens[0][:96] + tokens[1][:96]
    san.clock.now += 100
    assert one.host.good(ALL_TOKENS) == bytes.fromhex("00000004 00000000")


def test_page_and_operation_codes_name_the_commands(san: San) -> None:
    disk = san.disk("a")
    page = disk.host.good(bytes.fromhex("12 01 8f ffff 00"))
    assert page[4:8] == bytes.fromhex("0000 0020")
    assert page[14:16] == bytes.fromhex("0400")
    assert page[16:24] == bytes.fromhex("00015180 0000003c")
    assert bytes.fromhex("83 05 00 01 10 11 1c 84 08 00 01 03 04 05 06 07 08") in page
    assert bytes.fromhex("c000 c001 f800 ffff") in page
    assert bytes.fromhex("0106 005c 00") in page
    for action in (0x10, 0x11):
        cdb = bytes([0xA3, 0x0C, 0x02, 0x83, 0, action, 0, 0, 1, 0, 0, 0])
        answer = disk.host.good(cdb)
        assert answer[1] & 7 == 3
        # Of the control byte NACA is looked at.
        assert answer[4:20] == bytes([0x83, action]) + bytes(4) + b"\xff" * 8 + b"\0\4"


# ---------------------------------------------------------------------- beside a model


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_what_is_written_is_what_was_there(tmp_path_factory, data) -> None:
    san = San(tmp_path_factory.mktemp("san"))
    try:
        sizes = st.sampled_from([512, 4096])
        source = san.disk("a", block_size=data.draw(sizes))
        copy = san.disk("b", block_size=data.draw(sizes))
        size = source.unit.block_size
        cuts = sorted(
            data.draw(st.lists(st.integers(0, SIZE // size), min_size=2, max_size=6, unique=True))
        )
        ranges = [(a, b - a) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
        ranges = data.draw(st.permutations(ranges))
        before = source.content
        stream = b"".join(before[lba * size : (lba + n) * size] for lba, n in ranges)
        token = source.populate(*ranges, rod_type=PERSISTENT)
        for seed in range(3):
            at = data.draw(st.integers(0, SIZE // size - 1)) * size
            source.put(at, noise(min(SIZE - at, 16384), seed))
        own = copy.unit.block_size
        offset = data.draw(st.integers(0, -(-len(stream) // own) - 1))
        room = -(-len(stream) // own) - offset
        count = data.draw(st.integers(1, min(room, SIZE // own)))
        lba = data.draw(st.integers(0, SIZE // own - count))
        kept = copy.content
        assert copy.write_using(token, (lba, count), offset=offset).status is Status.GOOD
        wanted = stream[offset * own : (offset + count) * own].ljust(count * own, b"\0")
        expected = kept[: lba * own] + wanted + kept[(lba + count) * own :]
        assert copy.content == expected
        assert source.content != before or before[at : at + 512] == source.content[at : at + 512]
    finally:
        san.close()


def test_writers_beside_a_change_vulnerable_token_never_show(tmp_path: Path) -> None:
    """What is read is what was there, or nothing is told to have been: no third thing."""
    san = San(tmp_path)
    stop = Event()
    source, copy = san.disk("a", keeps=False), san.disk("b")

    def write() -> None:
        number = 0
        while not stop.is_set():
            source.put(number % 8 * 16384, noise(16384, number))
            number += 1
            stop.wait(0.002)

    writer = Thread(target=write)
    writer.start()
    try:
        good = ended = number = 0
        deadline = time.monotonic() + 20
        while number < 150 or not (good and ended):
            assert time.monotonic() < deadline, (good, ended)
            number += 1
            before_token = source.content
            parameters = populate_list((0, SIZE // 512))
            source.host.good(originate(POPULATE, 7, len(parameters)), parameters)
            before = source.content
            token = source.token()
            reply = copy.write_using(token, (0, SIZE // 512))
            if before_token == before and reply.status is Status.GOOD:
                assert copy.content == before, number
                good += 1
            ended += reply.status is not Status.GOOD
            san.tokens.cancel(source.unit.designator)
    finally:
        stop.set()
        writer.join()
        san.close()


def test_a_thread_ends_tokens_in_time(tmp_path: Path) -> None:
    san = San(tmp_path, default_inactivity=1)
    san.tokens = RodTokens(TARGET, san.limits, watch=True)
    try:
        disk = san.disk("a")
        disk.populate((0, 1), rod_type=PERSISTENT, inactivity=1)
        assert disk.unit.store.snapshots()
        deadline = time.monotonic() + 5
        while disk.unit.store.snapshots():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        san.close()
