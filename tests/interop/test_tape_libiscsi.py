"""Rows of the tape's sense table through libiscsi's raw CDBs: sense, data, residual."""

import re
from collections.abc import Iterator

import pytest

from support import servers
from support.libiscsi import Answer, Session
from support.tape import REWIND, TEST_UNIT_READY, filemarks, locate, locate16, read, space, write

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]

CAPACITY = 64 << 10
GOOD, CHECK_CONDITION = 0, 2


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    place = tmp_path_factory.mktemp("t") / "tape"
    tape = ("--tape", f"tape={place},capacity={CAPACITY}")
    with servers.target(*tape) as server, Session(server["tape"].url) as session:
        for _ in range(4):
            session(TEST_UNIT_READY)
        yield session


@pytest.fixture
def tape(session: Session) -> Session:
    """A tape `aB|c||`: a block of 100, one of 200, a mark, a block of 100, two marks; rewound."""
    assert session(set_block_length(0)[0], set_block_length(0)[1]).status == GOOD
    for cdb, data in (
        (REWIND, b""),
        (bytes.fromhex("19 00 00 00 00 00"), b""),
        (write(100), b"a" * 100),
        (write(200), b"B" * 200),
        (filemarks(1), b""),
        (write(100), b"c" * 100),
        (filemarks(2), b""),
        (REWIND, b""),
    ):
        assert session(cdb, data).status == GOOD
    return session


def set_block_length(length: int) -> tuple[bytes, bytes]:
    """MODE SELECT(6) with a block descriptor only."""
    data = bytes((0, 0, 0x10, 8, 0, 0, 0, 0, 0)) + length.to_bytes(3, "big")
    return bytes.fromhex("15 10 00 00 0c 00"), data


def position(session: Session) -> int:
    """FIRST LOGICAL OBJECT LOCATION of READ POSITION, short form."""
    return int.from_bytes(session(bytes.fromhex("34" + "00" * 9), read=20).data[4:8], "big")


def told(answer: Answer) -> tuple[int, int, str, int | None]:
    """Key, code, bits and INFORMATION of a CHECK CONDITION in fixed format, about this command."""
    assert answer.status == CHECK_CONDITION
    assert answer.sense[0] & 0x7F == 0x70
    return answer.key, answer.code, answer.flags, answer.information


def test_a_block_as_long_as_asked_for(tape: Session) -> None:
    assert tape(read(100), read=100) == Answer(GOOD, b"", b"a" * 100, 0)


def test_a_shorter_block(tape: Session) -> None:
    answer = tape(read(150), read=150)
    assert told(answer) == (0, 0, "i", 50)
    assert (answer.data, answer.residual) == (b"a" * 100, 50)
    assert position(tape) == 1


def test_a_shorter_block_with_sili_is_told_by_the_transport_alone(tape: Session) -> None:
    assert tape(read(150, sili=True), read=150) == Answer(GOOD, b"", b"a" * 100, 50)


def test_a_longer_block(tape: Session) -> None:
    answer = tape(read(40), read=40)
    assert told(answer) == (0, 0, "i", -60)
    assert (answer.data, answer.residual) == (b"a" * 40, 0)
    assert position(tape) == 1


def test_a_filemark(tape: Session) -> None:
    tape(locate(2))
    answer = tape(read(100), read=100)
    assert told(answer) == (0, 0x0001, "f", 100)
    assert answer.residual == 100
    assert position(tape) == 3


def test_fixed_blocks_up_to_one_of_another_length(tape: Session) -> None:
    tape(*set_block_length(100))
    answer = tape(read(3, fixed=True), read=300)
    assert told(answer) == (0, 0, "i", 2)
    assert (answer.data, answer.residual) == (b"a" * 100, 200)
    assert position(tape) == 2


def test_fixed_with_sili_is_refused_and_the_place_shown(tape: Session) -> None:
    tape(*set_block_length(100))
    answer = tape(read(1, fixed=True, sili=True), read=100)
    assert told(answer) == (5, 0x2400, "", None)
    assert answer.sense[15:18] == bytes.fromhex("c9 00 01")
    assert position(tape) == 0


def test_end_of_data(tape: Session) -> None:
    assert tape(space(3, 0)).status == GOOD
    assert told(tape(read(100), read=100)) == (8, 0x0005, "", 100)
    assert position(tape) == 6


def test_spacing(tape: Session) -> None:
    assert told(tape(space(0, 5))) == (0, 0x0001, "f", 3)
    assert position(tape) == 3
    assert told(tape(space(0, -2))) == (0, 0x0001, "f", 2)
    assert position(tape) == 2
    assert told(tape(space(1, 9))) == (8, 0x0005, "", 6)
    assert told(tape(space(1, -9))) == (0, 0x0004, "e", 6)
    assert position(tape) == 0


def test_locating(tape: Session) -> None:
    assert tape(locate16(3)).status == GOOD
    assert tape(read(100), read=100).data == b"c" * 100
    assert told(tape(locate16((1 << 64) - 1))) == (8, 0x0005, "", None)
    assert position(tape) == 6


def test_early_warning_and_the_end_of_the_medium(tape: Session) -> None:
    tape(space(3, 0))
    warned, before = [], position(tape)
    while True:
        answer = tape(write(1000), b"x" * 1000)
        if answer.status == GOOD:
            assert not warned
        elif answer.key == 0:
            assert told(answer) == (0, 0x0002, "e", 0)
            warned.append(position(tape))
        else:
            break
    # Everything that was answered with key 0 is on the tape; nothing of the last one is.
    assert told(answer) == (0xD, 0x0002, "e", 1000)
    end = position(tape)
    assert warned == list(range(warned[0], end + 1))
    assert before < warned[0]
    assert told(tape(filemarks(200)))[:3] == (0xD, 0x0002, "e")
    tape(locate(end - 1))
    assert tape(read(1000), read=1000).data == b"x" * 1000


def test_what_a_drive_does_not_know(tape: Session) -> None:
    assert told(tape(bytes.fromhex("c5 00 00 00 00 00 00 00 00 00"))) == (5, 0x2000, "", None)


def test_inquiry_and_density(tape: Session) -> None:
    data = tape(bytes.fromhex("12 00 00 00 60 00"), read=96).data
    assert data[:2] == b"\x01\x80"
    assert re.fullmatch(rb"SRVFREE TAPE {12}", data[8:32])
    assert tape(bytes.fromhex("44 00 00 00 00 00 00 ff ff 00"), read=0xFFFF).data[4] == 0xF0
