"""RODs in EXTENDED COPY: descriptors FEh, BEh and BFh (SPC-4 5.17.7.5, 6.4.5.9, 6.4.6.20)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serverfree.datamover.manager import CopyManager
from serverfree.datamover.offload import Offload
from serverfree.scsi.status import Status
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.units.local_fabric import LocalFabric
from serverfree.target.units.stream import StreamUnit
from support.copies import noise
from support.disk import Host
from support.rods import (
    DEFAULT,
    PERSISTENT,
    REFERENCE,
    TARGET,
    VULNERABLE,
    ZERO,
    Disk,
    Information,
    San,
    information,
    populate_list,
    write_list,
)

OWN, FROM_TOKEN = 0xFFFF, 0xF800


@pytest.fixture
def san(tmp_path: Path) -> Iterator[San]:
    made = San(tmp_path)
    yield made
    made.close()


def rod(
    rod_type: int,
    *,
    producer: int = OWN,
    lifetime: int = 0,
    inactivity: int = 0,
    returns: bool = False,
    deletes: bool = False,
    offset: int = 0,
    device_type: int = 0,
) -> bytes:
    """A ROD CSCD descriptor (table 143)."""
    return (
        bytes([0xFE, device_type, 0, 0])
        + producer.to_bytes(2, "big")
        + bytes(2)
        + b"".join(value.to_bytes(4, "big") for value in (rod_type, lifetime, inactivity))
        + bytes([0, 0, returns, deletes])
        + offset.to_bytes(4, "big")
        + bytes(4)
    )


def disk_cscd(disk: Disk) -> bytes:
    identifier = disk.unit.designator.identifier
    return bytes.fromhex("e4 000000 01 03 00 08") + identifier + bytes(12) + bytes(4)


def tape_cscd(unit: StreamUnit, *, pad: bool = False) -> bytes:
    identifier = unit.designator.identifier
    head = bytes.fromhex("e4 010000 01 03 00 08") + identifier + bytes(12)
    return head + bytes([pad << 2, 0, 0, 0])


def add(destination: int, *ranges: tuple[int, int], source: int = OWN) -> bytes:
    """BEh."""
    body = b"".join(
        lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4) for lba, blocks in ranges
    )
    return (
        bytes([0xBE, 0])
        + (12 + len(body)).to_bytes(2, "big")
        + source.to_bytes(2, "big")
        + destination.to_bytes(2, "big")
        + bytes([0, 0, 0, 0, 0, 1])
        + len(body).to_bytes(2, "big")
        + body
    )


def add_one(destination: int, lba: int, blocks: int) -> bytes:
    """BFh."""
    head = bytes.fromhex("bf 00 0010 ffff") + destination.to_bytes(2, "big")
    return head + lba.to_bytes(8, "big") + blocks.to_bytes(4, "big")


def move(source: int, destination: int, blocks: int, lba: int, to: int) -> bytes:
    """02h."""
    return (
        bytes.fromhex("02 00 0018")
        + source.to_bytes(2, "big")
        + destination.to_bytes(2, "big")
        + bytes(2)
        + blocks.to_bytes(2, "big")
        + lba.to_bytes(8, "big")
        + to.to_bytes(8, "big")
    )


def to_tape(source: int, destination: int, blocks: int, lba: int, transfer: int) -> bytes:
    """00h."""
    return (
        bytes.fromhex("00 00 0014")
        + source.to_bytes(2, "big")
        + destination.to_bytes(2, "big")
        + transfer.to_bytes(4, "big")
        + bytes(2)
        + blocks.to_bytes(2, "big")
        + lba.to_bytes(8, "big")
    )


def copy_list(cscds: list[bytes], segments: list[bytes], inline: bytes = b"", usage: int = 0):
    """EXTENDED COPY(LID1), list identifier 9."""
    targets, steps = b"".join(cscds), b"".join(segments)
    return (
        bytes([9 if usage != 3 else 0, usage << 3 | 1])
        + len(targets).to_bytes(2, "big")
        + bytes(4)
        + len(steps).to_bytes(4, "big")
        + len(inline).to_bytes(4, "big")
        + targets
        + steps
        + inline
    )


def extended_copy(host: Host, *arguments, **options):
    parameters = copy_list(*arguments, **options)
    cdb = bytes([0x83, 0]) + bytes(8) + len(parameters).to_bytes(4, "big") + bytes(2)
    return host(cdb, parameters)


@pytest.mark.parametrize("rod_type", [REFERENCE, DEFAULT, VULNERABLE, PERSISTENT])
def test_a_rod_is_a_disk_of_its_ranges(san: San, rod_type: int) -> None:
    disk, copy = san.disk("a"), san.disk("b")
    before = disk.content
    reply = extended_copy(
        disk.host,
        [rod(rod_type), disk_cscd(copy)],
        [add(0, (30, 2), (10, 3)), add_one(0, 100, 4), move(0, 1, 9, 0, 5), move(0, 1, 2, 3, 40)],
    )
    assert reply.status is Status.GOOD, str(reply.sense)
    stream = before[30 * 512 : 32 * 512] + before[10 * 512 : 13 * 512]
    stream += before[100 * 512 : 104 * 512]
    assert copy.content[5 * 512 : 14 * 512] == stream
    assert copy.content[40 * 512 : 42 * 512] == stream[3 * 512 : 5 * 512]
    assert disk.unit.store.snapshots() == []


def test_a_rod_is_populated_when_its_turn_comes(san: San) -> None:
    """What an earlier segment wrote is in it, what a later one writes is not."""
    disk, other = san.disk("a"), san.disk("b")
    first, second = other.content[:1024], disk.content[50 * 512 : 52 * 512]
    reply = extended_copy(
        disk.host,
        [rod(PERSISTENT), disk_cscd(other), disk_cscd(disk)],
        [
            move(1, 2, 2, 0, 20),
            add_one(0, 20, 2),
            move(2, 2, 2, 50, 20),
            move(0, 2, 2, 0, 80),
        ],
    )
    assert reply.status is Status.GOOD, str(reply.sense)
    assert disk.content[80 * 512 : 82 * 512] == first
    assert disk.content[20 * 512 : 22 * 512] == second


def test_a_returned_token_is_had_by_its_descriptor_and_used_by_another_disk(san: San) -> None:
    disk, copy = san.disk("a"), san.disk("b")
    before = disk.content
    reply = extended_copy(
        disk.host,
        [rod(PERSISTENT, returns=True, lifetime=3600), rod(REFERENCE, returns=True, inactivity=5)],
        [add_one(0, 7, 3), add(1, (7, 3))],
    )
    assert reply.status is Status.GOOD, str(reply.sense)
    answer = Information(disk.host.good(information(9)))
    assert (answer.action, answer.status) == (0, 1)
    assert [number for number, _ in answer.tokens] == [0, 1]
    kept, live = (token for _, token in answer.tokens)
    assert kept[:4] == PERSISTENT.to_bytes(4, "big")
    assert live[:4] == REFERENCE.to_bytes(4, "big")
    disk.put(7 * 512, noise(512, 8))
    assert copy.write_using(kept, (0, 3)).status is Status.GOOD
    assert copy.write_using(live, (10, 3)).status is Status.GOOD
    assert copy.content[:1536] == before[7 * 512 : 10 * 512]
    assert copy.content[10 * 512 : 13 * 512] == disk.content[7 * 512 : 10 * 512]
    san.clock.now += 3600
    assert copy.refused(0x11, write_list(kept, (0, 3))).asc == 0x2307


def test_a_token_goes_to_tape(san: San, tmp_path: Path) -> None:
    disk = san.disk("a")
    before = disk.content
    token = disk.populate((64, 100), (8, 28), rod_type=PERSISTENT)
    disk.put(0, noise(100 * 512, 8))
    tape = StreamUnit("t", open_cartridge(tmp_path / "tape", capacity=1 << 24), target=TARGET)
    san.units.append(tape)
    fabric = LocalFabric(TARGET, lambda: san.units)
    tape.copy_manager = CopyManager(
        fabric, own_unit=tape.designator, offload=Offload(tape.designator, san.tokens)
    )
    host = Host(tape)
    host(bytes(6))  # hears of the power-on
    inline = b"head" * 3 + token
    reply = extended_copy(
        host,
        [rod(0, producer=FROM_TOKEN, offset=12, deletes=True), tape_cscd(tape)],
        [to_tape(0, 1, 128, 0, 8192)],
        inline,
    )
    assert reply.status is Status.GOOD, str(reply.sense)
    host.good(bytes.fromhex("01 00 00 00 00 00"))
    stream = b"".join(host.good(bytes.fromhex("08 00 00 20 00 00")) for _ in range(8))
    assert stream == before[64 * 512 : 164 * 512] + before[8 * 512 : 36 * 512]
    assert disk.refused(0x11, write_list(token, (0, 1))).asc == 0x2309
    page = host.good(bytes.fromhex("12 01 8f ffff 00"))
    assert page[4:6] == bytes.fromhex("0001")  # no limits of POPULATE TOKEN, which it has not
    assert bytes.fromhex("83 03 00 01 1c 84 08 00 01 03 04 05 06 07 08") in page
    assert host.sense(bytes.fromhex("83 10") + bytes(14)).asc == 0x2400


def test_zeros_are_a_source_too(san: San) -> None:
    disk = san.disk("a")
    zeros = ZERO.to_bytes(4, "big") + bytes(2) + bytes.fromhex("01f8") + bytes(504)
    reply = extended_copy(
        disk.host,
        [rod(0, producer=OWN), disk_cscd(disk)],
        [move(0, 1, 33, 1 << 40, 4)],
        zeros,
    )
    assert reply.status is Status.GOOD, str(reply.sense)
    assert not any(disk.content[4 * 512 : 37 * 512])
    assert any(disk.content[37 * 512 : 38 * 512])


def sense_of(disk: Disk, *arguments, **options) -> tuple[int, int, int | None]:
    reply = extended_copy(disk.host, *arguments, **options)
    assert reply.status is Status.CHECK_CONDITION
    pointer = reply.sense.pointer
    return int(reply.sense.key), int(reply.sense.asc), pointer and pointer.byte


@pytest.mark.parametrize(
    ("descriptor", "asc", "at"),
    [
        (rod(PERSISTENT, producer=FROM_TOKEN), 0x2600, 20),
        (rod(PERSISTENT, producer=1), 0x2303, None),
        (rod(0x00800003), 0x2600, 24),
        (rod(ZERO), 0x2600, 24),
        (rod(PERSISTENT, lifetime=5), 0x2600, 28),
        (rod(PERSISTENT, inactivity=5), 0x2600, 32),
        (rod(PERSISTENT, returns=True, lifetime=86401), 0x2600, 28),
        (rod(PERSISTENT, returns=True, inactivity=86401), 0x2600, 32),
        (rod(PERSISTENT, deletes=True), 0x2600, 39),
        (rod(PERSISTENT, offset=4), 0x2600, 40),
        (rod(0, returns=True, producer=FROM_TOKEN), 0x2600, 38),
        (rod(0, producer=1), 0x2302, None),
        (rod(0, producer=FROM_TOKEN, offset=1), 0x2600, 40),
    ],
)
def test_rod_descriptors_that_cannot_be(san: San, descriptor: bytes, asc: int, at) -> None:
    disk = san.disk("a")
    assert sense_of(disk, [descriptor], [], bytes(512)) == (5, asc, at)


def test_a_token_nobody_could_ask_for_is_not_made(san: San) -> None:
    disk = san.disk("a")
    descriptors = [rod(PERSISTENT, returns=True)]
    assert sense_of(disk, descriptors, [add_one(0, 0, 1)], usage=3) == (5, 0x2600, 38)


def test_segments_that_cannot_populate(san: San) -> None:
    disk = san.disk("a")
    own, kept = disk_cscd(disk), rod(PERSISTENT)
    for segment in (
        add(0, (0, 1), source=1),
        add(1, (0, 1)),
        add(7, (0, 1)),
        add(0, (5, 3), (7, 1)),
        move(1, 0, 1, 0, 0),
    ):
        assert sense_of(disk, [kept, own], [segment])[:2] == (5, 0x2600)
    assert sense_of(disk, [kept, own], [add_one(0, 5, 3), add_one(0, 7, 1)])[:2] == (5, 0x2600)
    other = rod(PERSISTENT, device_type=1)
    assert sense_of(disk, [other], [add_one(0, 5, 3)])[:2] == (5, 0x2600)


def test_a_rod_is_used_populated_and_populated_before_it_is_used(san: San) -> None:
    disk = san.disk("a")
    cscds = [rod(PERSISTENT), disk_cscd(disk)]
    before = disk.content
    assert sense_of(disk, cscds, [move(0, 1, 1, 0, 0)]) == (10, 0x0804, 4)
    segments = [add_one(0, 5, 1), move(0, 1, 1, 0, 0), add_one(0, 6, 1)]
    assert sense_of(disk, cscds, segments) == (10, 0x2600, 6)
    assert sense_of(disk, cscds, [add_one(0, 511, 2)]) == (10, 0x2100, 8)
    assert sense_of(disk, cscds, [add_one(0, 5, 2), move(0, 1, 3, 0, 0)])[0] == 10
    assert disk.content == before[5 * 512 : 6 * 512] + before[512:]
    assert disk.unit.store.snapshots() == []


def verify(source: int, *, ready: bool = False) -> bytes:
    """07h."""
    return bytes.fromhex("07 00 0008") + source.to_bytes(2, "big") + bytes([0, 0, ready, 0, 0, 0])


@pytest.mark.parametrize("ready", [False, True])
def test_a_look_at_a_rod_that_is_to_be_populated_is_passed_over(san: San, ready: bool) -> None:
    """6.4.6.9: no error whatever it holds, and it can be populated further."""
    disk, other = san.disk("a"), san.disk("b")
    before = disk.content
    segments = [
        verify(0, ready=ready), add_one(0, 5, 1), verify(0, ready=ready), add_one(0, 8, 1),
        move(0, 1, 2, 0, 0), verify(0, ready=ready),
    ]  # fmt: skip
    reply = extended_copy(disk.host, [rod(DEFAULT), disk_cscd(other)], segments)
    assert reply.status is Status.GOOD, str(reply.sense)
    assert other.content[:1024] == before[5 * 512 : 6 * 512] + before[8 * 512 : 9 * 512]


def test_a_token_that_becomes_invalid_under_a_copy_is_out_of_reach(san: San) -> None:
    """5.17.7.5.1: as an unreachable CSCD, for who looks at it and for who reads it."""
    disk, other = san.disk("a"), san.disk("b")
    token = disk.populate((10, 4), rod_type=VULNERABLE)
    good = extended_copy(disk.host, [rod(0, producer=FROM_TOKEN)], [verify(0, ready=True)], token)
    assert good.status is Status.GOOD
    cscds = [rod(0, producer=FROM_TOKEN), disk_cscd(other), disk_cscd(disk)]
    # The second ends the token; the last is too far behind to be read before that.
    first = [move(0, 1, 1, 0, 0), move(1, 2, 1, 40, 11), *[verify(1)] * 80]
    for number, last in enumerate((verify(0), move(0, 1, 1, 0, 1))):
        before = other.content
        parameters = copy_list(cscds, [*first, last], token)
        cdb = bytes([0x83, 0]) + bytes(8) + len(parameters).to_bytes(4, "big") + bytes(2)
        sense = disk.host.sense(cdb, parameters)
        assert (sense.key, sense.asc, sense.command_specific) == (10, 0x0D02, 82)
        assert sense.pointer is not None
        assert (sense.pointer.byte, sense.pointer.in_segment) == (16, False)
        assert other.content[512:] == before[512:]
        token = disk.populate((10, 4), rod_type=VULNERABLE, identifier=20 + number)


def test_a_copy_that_fails_returns_no_token(san: San) -> None:
    disk = san.disk("a")
    cscds = [rod(PERSISTENT, returns=True), disk_cscd(disk)]
    segments = [add_one(0, 5, 1), move(1, 1, 1, 1 << 30, 0)]
    assert sense_of(disk, cscds, segments)[0] == 10
    answer = Information(disk.host.good(information(9)))
    assert (answer.status, answer.tokens) == (2, [])
    assert disk.unit.store.snapshots() == []


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_list_whatever_is_a_failure_of_ours(data, tmp_path_factory) -> None:
    """Bytes of good lists changed at random: refused or done, never an internal failure."""
    san = San(tmp_path_factory.mktemp("san"))
    try:
        disk = san.disk("a")
        token = disk.populate((0, 9), rod_type=PERSISTENT)
        which = data.draw(st.sampled_from([0x00, 0x10, 0x11]))
        good = {
            0x00: copy_list(
                [rod(PERSISTENT, returns=True), rod(0, producer=FROM_TOKEN), disk_cscd(disk)],
                [add(0, (30, 2), (10, 3)), move(0, 2, 5, 0, 5), move(1, 2, 2, 3, 40)],
                token,
            ),
            0x10: populate_list((3, 4), (40, 5), rod_type=PERSISTENT, inactivity=9),
            0x11: write_list(token, (3, 4), (40, 2), offset=1),
        }[which]
        raw = bytearray(good)
        for _ in range(data.draw(st.integers(0, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        raw = raw[: data.draw(st.integers(1, len(raw)) | st.just(len(raw)))]
        cdb = bytes([0x83, which]) + bytes(4) + (5).to_bytes(4, "big") * (which != 0)
        cdb = cdb.ljust(10, b"\0") + len(raw).to_bytes(4, "big") + bytes(2)
        reply = disk.host(cdb, bytes(raw))
        assert reply.sense is None or reply.sense.key != 4, str(reply.sense)
        reply = disk.host(information(5 if which else raw[0]))
        assert reply.sense is None or reply.sense.key == 5
    finally:
        san.close()
