"""RECEIVE COPY RESULTS with less room than there is to tell (SPC-4 4.2.5.6, 5.17.4.5, 6.20 on).

An answer is cut and says how long it is all the same; what was not fetched whole stays, where the
standard says so; an ALLOCATION LENGTH of zero declines it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.rods import PERSISTENT, Disk, San, ranges_of

OWN = 0xFFFF
STATUS, DATA, PARAMETERS, FAILURE, STATUS4, DATA4, TOKENS, ALL_TOKENS = 0, 1, 3, 4, 5, 6, 7, 8
EVER = 1 << 16
KEPT = {FAILURE, DATA, DATA4, TOKENS}
"""What is let go of once it is fetched whole, or declined."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    san = San(tmp_path)
    yield san.disk("a")
    san.close()


def ask(disk: Disk, action: int, identifier: int, room: int):
    """RECEIVE COPY RESULTS: 8 bits of list identifier up to 04h but for 03h, 32 behind."""
    named = bytes([identifier, 0, 0, 0]) if action < STATUS4 else identifier.to_bytes(4, "big")
    if action in (PARAMETERS, ALL_TOKENS):
        named = bytes(4)
    return disk.host(bytes([0x84, action]) + named + bytes(4) + room.to_bytes(4, "big") + bytes(2))


def answer(disk: Disk, action: int, identifier: int, room: int) -> bytes:
    reply = ask(disk, action, identifier, room)
    assert reply.status == 0
    return bytes(reply.data)


def hold(lba: int) -> bytes:
    """0Dh: a block onto its neighbour, and held."""
    ends = OWN.to_bytes(2, "big") * 2
    places = lba.to_bytes(8, "big") + (lba + 1).to_bytes(8, "big")
    return bytes.fromhex("0d 00 0018") + ends + bytes(2) + bytes([0, 1]) + places


def copy(disk: Disk, identifier: int) -> None:
    """Make something of every kind that can be asked for: held data, a token and a failure."""
    lid4 = identifier > 0xFF
    rod = bytes.fromhex("fe 00 0000 ffff 0000") + PERSISTENT.to_bytes(4, "big")
    rod += bytes(8) + bytes([0, 0, 1, 0]) + bytes(8)
    ranges = ranges_of((5, 2))
    add = bytes.fromhex("be 00 001c ffff 0000 0000000000 01 0010") + ranges
    steps = hold(7) + add
    lengths = len(rod), len(steps)
    if lid4:
        head = bytes.fromhex("01 01 0020") + bytes(12) + b"\xff" + bytes(3)
        head += identifier.to_bytes(4, "big") + bytes(18)
        head += b"".join(n.to_bytes(2, "big") for n in (*lengths, 0))
    else:
        head = bytes([identifier, 1]) + lengths[0].to_bytes(2, "big") + bytes(4)
        head += lengths[1].to_bytes(4, "big") + bytes(4)
    run(disk, head + rod + steps, lid4)


def fail(disk: Disk, identifier: int) -> None:
    head = bytes([identifier, 1, 0, 0]) + bytes(4) + (28).to_bytes(4, "big") + bytes(4)
    run(disk, head + hold(1 << 40), False, good=False)


def run(disk: Disk, parameters: bytes, lid4: bool, *, good: bool = True) -> None:
    cdb = bytes([0x83, lid4]) + bytes(8) + len(parameters).to_bytes(4, "big") + bytes(2)
    assert (disk.host(cdb, parameters).status == 0) == good


QUESTIONS = {
    "status": (STATUS, 9, copy),
    "data": (DATA, 9, copy),
    "parameters": (PARAMETERS, 9, copy),
    "failure": (FAILURE, 9, fail),
    "status of an operation": (STATUS4, 1 << 16, copy),
    "status of one with 8 bits": (STATUS4, 9, copy),
    "status of a failure": (STATUS4, 9, fail),
    "data of an operation": (DATA4, 1 << 16, copy),
    "tokens": (TOKENS, 1 << 16, copy),
    "tokens of one with 8 bits": (TOKENS, 9, copy),
    "all tokens": (ALL_TOKENS, 9, copy),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_answer_is_cut_and_what_is_not_fetched_stays(disk: Disk, name: str) -> None:
    action, identifier, begin = QUESTIONS[name]
    begin(disk, identifier)
    whole = answer(disk, action, identifier, EVER)
    assert int.from_bytes(whole[:4], "big") == len(whole) - 4
    for room in (0, 1, 3, 4, 5, len(whole) - 1, len(whole), len(whole) + 1):
        if action != ALL_TOKENS:  # of those there would be more each time
            begin(disk, identifier)
        cut = answer(disk, action, identifier, room)
        if action == TOKENS:  # each copy has made one of its own
            assert (len(cut), cut[:4]) == (min(room, len(whole)), whole[: min(4, room)])
        else:
            assert cut == whole[:room]
        if action == STATUS:  # told once, however little of it was wanted (6.25 a)
            assert ask(disk, action, identifier, EVER).status == 2
            continue
        again = ask(disk, action, identifier, EVER)
        if action in KEPT and not 0 < room < len(whole):
            assert len(again.data) < len(whole), f"{room} of {len(whole)} bytes"
        else:
            assert len(again.data) == len(whole), f"{room} of {len(whole)} bytes"
            assert again.data[: len(cut)] == cut


def test_tokens_outlive_what_else_there_was_to_tell(disk: Disk) -> None:
    copy(disk, 9)
    assert answer(disk, STATUS, 9, EVER)[4] == 1
    assert len(answer(disk, DATA, 9, EVER)) == 4 + 512
    assert len(answer(disk, TOKENS, 9, EVER)) == 36 + 514


def test_what_is_fetched_by_one_nexus_is_nobody_elses(disk: Disk) -> None:
    copy(disk, 9)
    fail(disk, 10)
    for action, identifier in ((STATUS4, 9), (STATUS, 9), (DATA, 9), (TOKENS, 9), (FAILURE, 10)):
        cdb = bytes([0x84, action])
        cdb += bytes([identifier, 0, 0, 0]) if action < STATUS4 else identifier.to_bytes(4, "big")
        cdb += bytes(4) + EVER.to_bytes(4, "big") + bytes(2)
        sense = disk.other.sense(cdb)
        assert (sense.key, sense.asc) == (5, 0x2400)
        assert answer(disk, action, identifier, EVER)
