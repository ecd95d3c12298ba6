"""Rows of the tape's sense table through libiscsi's raw CDBs: sense, data, residual."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import servers
from support.libiscsi import Answer, Session
from support.tape import (
    LOAD,
    REWIND,
    TEST_UNIT_READY,
    UNLOAD,
    filemarks,
    locate,
    locate16,
    read,
    space,
    write,
)

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]

CAPACITY = 64 << 10
GOOD, CHECK_CONDITION = 0, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cartridge is."""
    return tmp_path_factory.mktemp("t") / "tape"


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with servers.target("--tape", f"tape={folder},capacity={CAPACITY}") as server:
        yield server["tape"].url


@pytest.fixture(scope="module")
def session(url: str) -> Iterator[Session]:
    with Session(url) as session:
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


def select_page(session: Session, page: bytes) -> None:
    """MODE SELECT(6) of a page."""
    data = bytes.fromhex("00 00 10 00") + page
    assert session(bytes((0x15, 0x10, 0, 0, len(data), 0)), data).status == GOOD


def test_silence_about_a_longer_block_unless_a_block_length_is_set(tape: Session) -> None:
    assert tape(read(40, sili=True), read=40) == Answer(GOOD, b"", b"a" * 40, 0)
    tape(*set_block_length(512))
    assert told(tape(read(40, sili=True), read=40)) == (0, 0, "i", -160)
    assert position(tape) == 2


def test_fixed_without_a_block_length(tape: Session) -> None:
    assert told(tape(read(1, fixed=True), read=100)) == (5, 0x2400, "", None)
    assert position(tape) == 0


def test_fixed_blocks_up_to_a_mark_and_up_to_the_end(tape: Session) -> None:
    tape(*set_block_length(100))
    tape(locate(3))
    answer = tape(read(2, fixed=True), read=200)
    assert told(answer) == (0, 0x0001, "f", 1)
    assert (answer.data, answer.residual) == (b"c" * 100, 100)
    tape(space(3, 0))
    answer = tape(read(2, fixed=True), read=200)
    assert told(answer) == (8, 0x0005, "", 2)
    assert answer.residual == 200


def test_a_partition_that_there_is_not(tape: Session) -> None:
    tape(locate(1))
    answer = tape(bytes.fromhex("92 02 00 03") + bytes(12))
    assert told(answer) == (5, 0x2400, "", None)
    assert answer.sense[15:18] == bytes.fromhex("c0 00 03")
    assert position(tape) == 1


def test_formatting_elsewhere_than_at_the_beginning(tape: Session) -> None:
    tape(locate(1))
    assert told(tape(bytes.fromhex("04 00 00 00 00 00"))) == (5, 0x3B0C, "", None)
    assert told(tape(bytes.fromhex("0b 00 00 ff ff 00"))) == (5, 0x3B0C, "", None)
    assert position(tape) == 1


def test_a_parameter_that_cannot_be(tape: Session) -> None:
    data = bytes.fromhex("00 00 20 00")  # a buffered mode that there is not
    answer = tape(bytes.fromhex("15 10 00 00 04 00"), data)
    assert told(answer) == (5, 0x2600, "", None)
    assert answer.sense[15:18] == bytes.fromhex("8e 00 02")


def test_write_protection(tape: Session) -> None:
    page = "10 0e 00 00 00 00 00 00 40 00 {} 00 00 00 00 00"
    select_page(tape, bytes.fromhex(page.format("14")))
    try:
        assert told(tape(write(1), b"x")) == (7, 0x2700, "", None)
        assert told(tape(filemarks(1))) == (7, 0x2700, "", None)
        assert position(tape) == 0
    finally:
        select_page(tape, bytes.fromhex(page.format("10")))
    assert tape(read(100), read=100).data == b"a" * 100


def test_append_only_mode(tape: Session) -> None:
    select_page(tape, bytes.fromhex("50 01 00 1c 00 10") + bytes(26))
    try:
        assert told(tape(write(1), b"x")) == (7, 0x5A02, "", None)
        assert position(tape) == 0
        tape(space(3, 0))
        assert tape(write(1), b"x").status == GOOD
    finally:
        select_page(tape, bytes.fromhex("50 01 00 1c 00 00") + bytes(26))


def test_block_protection(tape: Session) -> None:
    """By Reed-Solomon: LTFS's four bytes behind the check string, then with a bit wrong."""
    select_page(tape, bytes.fromhex("4a f0 00 1c 01 04 c0") + bytes(25))
    block = b"123456789" + bytes.fromhex("4b4f673a")
    try:
        assert told(tape(write(13), block[:-1] + b"\x3b")) == (4, 0x1001, "", 13)
        assert position(tape) == 0
        assert tape(write(13), block).status == GOOD
        tape(REWIND)
        assert tape(read(13), read=13).data == block
    finally:
        select_page(tape, bytes.fromhex("4a f0 00 1c") + bytes(28))
    tape(REWIND)
    assert tape(read(9), read=9).data == b"123456789"


def test_an_encrypted_block_without_its_key(tape: Session) -> None:
    def set_key(modes: str, key: bytes) -> None:
        page = bytes.fromhex(f"40 40 {modes} 01 00 00") + bytes(7)
        page += len(key).to_bytes(2, "big") + key
        page = bytes.fromhex("00 10") + len(page).to_bytes(2, "big") + page
        cdb = bytes.fromhex("b5 20 00 10 00 00") + len(page).to_bytes(4, "big") + b"\0\0"
        assert tape(cdb, page).status == GOOD

    set_key("02 02", bytes(32))
    assert tape(write(6), b"secret").status == GOOD
    tape(REWIND)
    assert tape(read(6), read=6).data == b"secret"
    tape(REWIND)
    set_key("00 02", b"\1" * 32)
    assert told(tape(read(6), read=6)) == (7, 0x7403, "", None)
    set_key("00 00", b"")
    assert told(tape(read(6), read=6)) == (7, 0x7401, "", None)
    assert position(tape) == 0


def test_a_damaged_block_is_passed(tape: Session, folder: Path) -> None:
    with (folder / "part0.log").open("r+b") as log:
        log.seek(log.read().index(b"B" * 200) + 7)
        log.write(b"?")
    tape(locate(1))
    answer = tape(read(300), read=300)
    assert told(answer) == (3, 0x1100, "", 300)
    assert answer.residual == 300
    assert position(tape) == 2


def test_the_explicit_address_commands(tape: Session) -> None:
    def at(head: str, block: int, length: int) -> bytes:
        return bytes.fromhex(head) + block.to_bytes(8, "big") + length.to_bytes(3, "big") + b"\0"

    assert tape(at("88 00 00 00", 3, 100), read=100).data == b"c" * 100
    assert told(tape(at("88 00 00 00", 2, 50), read=50)) == (0, 0x0001, "f", 50)
    assert tape(at("8a 00 00 00", 1, 3), b"new").status == GOOD
    assert told(tape(read(1), read=1)) == (8, 0x0005, "", 1)
    assert tape(at("81 04 00 00", 2, 3), read=3).data == b"new"
    assert tape(at("80 00 00 00", 1, 2)).status == GOOD
    assert position(tape) == 3


def test_without_a_medium_and_with_it_again(tape: Session, url: str) -> None:
    with Session(url, "iqn.2026-11.com.example:another") as other:
        for _ in range(4):
            other(TEST_UNIT_READY)
        assert tape(UNLOAD).status == GOOD
        for each in (tape, other):
            assert told(each(TEST_UNIT_READY)) == (2, 0x3A00, "", None)
        assert told(tape(read(100), read=100)) == (2, 0x3A00, "", None)
        assert tape(LOAD).status == GOOD
        assert tape(TEST_UNIT_READY).status == GOOD, "who loads knows of it"
        assert told(other(TEST_UNIT_READY)) == (6, 0x2800, "", None)
        assert other(TEST_UNIT_READY).status == GOOD
        assert position(tape) == 0
        assert other(read(100), read=100).data == b"a" * 100


def test_after_an_error_with_naca_nothing_moves_until_clear_aca(tape: Session):
    """SAM-5 5.9: the block behind the one that failed is still to be read."""
    clear_aca, aca_active = 3, 0x30
    assert tape(TEST_UNIT_READY[:-1] + b"\x04").status == GOOD
    short = tape(read(50)[:-1] + b"\x04", read=50)
    assert (short.status, short.flags, short.information) == (CHECK_CONDITION, "i", -50)
    for cdb, length in ((read(200), 200), (write(10), 0), (REWIND, 0)):
        data = b"" if length else b"x" * (10 if cdb == write(10) else 0)
        assert tape(cdb, data, read=length).status == aca_active
    assert tape.manage(clear_aca) == 0
    assert tape(read(200), read=200).data == b"B" * 200
