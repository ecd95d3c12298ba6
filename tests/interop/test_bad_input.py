"""Bad input over the wire: the sense the standards ask for, and nothing changed on any medium.

Expectations are bytes written down from the clauses; the carrier is the tests' own wire client.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import servers
from support.wire import WireClient

pytestmark = pytest.mark.served

MiB = 1 << 20
DISK, TAPE, NO_SUCH_LUN = 0, 1, 5
BLOCKS = 16 * MiB // 512
CHECK_CONDITION = 2

ILLEGAL_REQUEST = 0x5
COPY_ABORTED = 0xA


def in_cdb(byte: int, bit: int | None) -> bytes:
    """SENSE KEY SPECIFIC pointing into the CDB (SPC-4 4.5.2.4.2): SKSV, C/D, BPV, bit, byte."""
    return bytes([0xC0 | (0x08 | bit if bit is not None else 0), byte >> 8, byte & 0xFF])


def cdb(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


def e4(designator: bytes, device_type: int, specific: bytes) -> bytes:
    """Identification descriptor CSCD descriptor (SPC-4 6.4.5.2 table): 32 bytes."""
    # Byte 4 code set binary, byte 5 association LU and type NAA, byte 7 length.
    head = bytes([0xE4, device_type, 0, 0, 1, 3, 0, len(designator)])
    return (head + designator).ljust(28, b"\0") + specific


def parameter_list(cscds: bytes, segments: bytes, list_id: int = 7) -> bytes:
    """EXTENDED COPY(LID1) parameter list header (SPC-4 6.4.3.1) and descriptors, no inline data."""
    header = bytearray(16)
    header[0] = list_id
    header[2:4] = len(cscds).to_bytes(2, "big")
    header[8:12] = len(segments).to_bytes(4, "big")
    return bytes(header) + cscds + segments


BLOCK_SPECIFIC = bytes.fromhex("00000200")  # no PAD, DISK BLOCK LENGTH 512
UNKNOWN = bytes.fromhex("3123456789abcdef")
# Block to block, 1 block, LBA 0 to LBA 64 (6.4.6.5): source 0, destination 1.
COPY_ONE_BLOCK = cdb("02 00 0018 0000 0001 0000 0001" + "00" * 8 + "0000000000000040")


def extended_copy(length: int) -> bytes:
    return b"\x83" + bytes(9) + length.to_bytes(4, "big") + bytes(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def storage(folder) -> Iterator[servers.Server]:
    servers.random_file(folder / "disk.img", 16 * MiB)
    with servers.target(
        *("--disk", f"disk={folder / 'disk.img'},thin"),
        *("--tape", f"tape={folder / 'tape'},capacity=64MiB"),
    ) as server:
        with WireClient(server.address, server["disk"].target_name) as client:
            client.command(bytes(6), lun=TAPE)
            record = os.urandom(65_536)
            assert client.command(cdb("0a 00 010000 00"), lun=TAPE, data_out=record).status == 0
            assert client.command(cdb("10 00 000001 00"), lun=TAPE).status == 0
        yield server


@pytest.fixture
def client(storage) -> Iterator[WireClient]:
    with WireClient(storage.address, storage["disk"].target_name) as client:
        for lun in (DISK, TAPE):
            client.command(bytes(6), lun=lun)  # takes the power-on unit attention
        yield client


def media(folder: Path) -> dict[str, str]:
    """Return a hash of every file that holds what the units store."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def nothing_changes(storage, client, folder) -> Iterator[None]:
    """Every test leaves the media as they were and the connection usable."""
    before = media(folder)
    yield
    assert client.command(bytes(6), lun=DISK).status == 0
    assert media(folder) == before


def refused(client: WireClient, command: bytes, lun: int = DISK, **more) -> bytes:
    """Run a command that must fail and return its sense, of fixed format."""
    ended = client.command(command, lun=lun, **more)
    assert ended.status == CHECK_CONDITION, ended
    assert ended.sense[0] & 0x7F == 0x70
    return ended.sense


def code(sense: bytes) -> tuple[int, int]:
    """Return sense key, and ASC with ASCQ."""
    return sense[2] & 0x0F, sense[12] << 8 | sense[13]


@pytest.mark.parametrize(
    ("command", "byte", "bit"),
    [
        pytest.param("00 00 01 00 00 00", 2, 0, id="TEST UNIT READY byte 2"),
        pytest.param("00 80 00 00 00 00", 1, 7, id="TEST UNIT READY byte 1"),
        pytest.param("12 02 00 00 60 00", 1, 1, id="INQUIRY obsolete CMDDT"),
        pytest.param("28 00 00000000 80 0001 00", 6, 7, id="READ(10) byte 6"),
        pytest.param("2a 00 00000000 40 0001 00", 6, 6, id="WRITE(10) byte 6"),
        pytest.param("a0 00 00 80 0000 00000100 00 00", 3, 7, id="REPORT LUNS byte 3"),
        pytest.param("9e 30 0000000000000000 00000020 00 00", 1, None, id="unknown service action"),
    ],
)
def test_reserved_bits_are_refused_where_they_lie(client, command, byte, bit):
    bits = cdb(command)
    data = {"data_out": bytes(512)} if bits[0] == 0x2A else {"data_in": 512}
    sense = refused(client, bits, **data)
    assert code(sense) == (ILLEGAL_REQUEST, 0x2400)
    assert sense[16:18] == byte.to_bytes(2, "big")
    assert sense[15] & 0xC0 == 0xC0
    if bit is not None:
        assert sense[15:18] == in_cdb(byte, bit)


def test_reserved_bits_of_the_control_byte_are_refused(client):
    """SAM-5 5.2: bit 2 is NACA, bits 7-6 are vendor specific, the others mean nothing."""
    assert refused(client, cdb("00 00 00 00 00 08"))[15:18] == in_cdb(5, 3)


def test_an_unknown_operation_code_is_refused(client):
    assert code(refused(client, cdb("ff" + "00" * 15))) == (ILLEGAL_REQUEST, 0x2000)


def test_a_lun_that_is_not_there_is_refused(client):
    read = cdb("28 00 00000000 00 0001 00")
    assert code(refused(client, read, NO_SUCH_LUN, data_in=512)) == (ILLEGAL_REQUEST, 0x2500)
    inquiry = client.command(cdb("12 00 0000 24 00"), lun=NO_SUCH_LUN, data_in=36)
    assert inquiry.status == 0
    assert inquiry.data[0] == 0x7F  # SPC-4 6.6.2: qualifier 011b, type 1Fh


@pytest.mark.parametrize(
    ("command", "writes"),
    [
        pytest.param(f"28 00 {BLOCKS:08x} 00 0001 00", False, id="READ(10) of the block behind"),
        pytest.param(f"28 00 {BLOCKS - 1:08x} 00 0002 00", False, id="READ(10) across the end"),
        pytest.param("28 00 ffffffff 00 0001 00", False, id="READ(10) of the last LBA there is"),
        pytest.param("08 1fffff 02 00", False, id="READ(6) far behind"),
        pytest.param(f"88 00 {BLOCKS - 1:016x} ffffffff 00 00", False, id="READ(16) of too much"),
        pytest.param(f"88 00 {2**64 - 1:016x} 00000002 00 00", False, id="READ(16) wrapping"),
        pytest.param(f"2a 00 {BLOCKS:08x} 00 0001 00", True, id="WRITE(10) of the block behind"),
        pytest.param(f"2a 00 {BLOCKS - 1:08x} 00 0002 00", True, id="WRITE(10) across the end"),
        pytest.param(f"8a 00 {2**64 - 1:016x} 00000001 00 00", True, id="WRITE(16) wrapping"),
        pytest.param(f"93 00 {BLOCKS - 1:016x} 00000002 00 00", True, id="WRITE SAME(16)"),
        pytest.param(f"35 00 {BLOCKS:08x} 00 0001 00", False, id="SYNCHRONIZE CACHE(10)"),
        pytest.param(f"2f 00 {BLOCKS:08x} 00 0001 00", False, id="VERIFY(10)"),
    ],
)
def test_an_lba_past_the_end_is_refused(client, command, writes):
    bits = cdb(command)
    data = {"data_out": bytes(1024)} if writes else {"data_in": 1024}
    if bits[0] in (0x35, 0x2F):
        data = {}
    assert code(refused(client, bits, **data)) == (ILLEGAL_REQUEST, 0x2100)


def unmap(lba: int, blocks: int) -> bytes:
    descriptor = lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4)
    return bytes.fromhex("0016 0010 00000000") + descriptor


def test_unmap_past_the_end_is_refused(client):
    sense = refused(client, cdb("42 00 00000000 00 0018 00"), data_out=unmap(BLOCKS - 1, 2))
    assert code(sense) == (ILLEGAL_REQUEST, 0x2100)


def test_a_truncated_unmap_list_is_refused(client):
    """SBC-4: a list too short for its header is PARAMETER LIST LENGTH ERROR."""
    sense = refused(client, cdb("42 00 00000000 00 0004 00"), data_out=unmap(0, 8)[:4])
    assert code(sense) == (ILLEGAL_REQUEST, 0x1A00)


def test_a_truncated_mode_parameter_list_is_refused(client):
    """SPC-4 6.12: a list that ends inside its header or a page."""
    sense = refused(client, cdb("55 10 0000000000 0004 00"), data_out=bytes(4))
    assert code(sense) == (ILLEGAL_REQUEST, 0x1A00)
    page = bytes(8) + bytes.fromhex("0812 0400")
    sense = refused(client, cdb("55 10 0000000000 000c 00"), data_out=page)
    assert code(sense) == (ILLEGAL_REQUEST, 0x1A00)


@pytest.mark.parametrize("length", [1, 15])
def test_a_copy_list_shorter_than_its_header_is_refused(client, length):
    sense = refused(client, extended_copy(length), data_out=bytes(length))
    assert code(sense) == (ILLEGAL_REQUEST, 0x1A00)


def test_a_copy_list_that_announces_more_than_it_holds_is_refused(client):
    whole = parameter_list(e4(UNKNOWN, 0, BLOCK_SPECIFIC), COPY_ONE_BLOCK)
    for cut in (len(whole) - 1, len(whole) - 28, 17):
        sense = refused(client, extended_copy(cut), data_out=whole[:cut])
        assert code(sense) == (ILLEGAL_REQUEST, 0x1A00)


def test_a_copy_list_of_which_only_a_part_came_is_refused(client):
    """The CDB asks for all of it, the initiator has less: nothing is made up for the rest."""
    whole = parameter_list(e4(UNKNOWN, 0, BLOCK_SPECIFIC) * 2, COPY_ONE_BLOCK)
    for came in (16, 48, len(whole) - 1):
        part = whole[:came]
        sense = refused(client, extended_copy(len(whole)), data_out=part, expected=came)
        assert code(sense) == (ILLEGAL_REQUEST, 0x1A00)


def test_an_unknown_cscd_descriptor_type_is_refused(client):
    broken = b"\xe9" + e4(UNKNOWN, 0, BLOCK_SPECIFIC)[1:]
    whole = parameter_list(broken * 2, COPY_ONE_BLOCK)
    sense = refused(client, extended_copy(len(whole)), data_out=whole)
    assert code(sense) == (ILLEGAL_REQUEST, 0x2607)


def test_an_unknown_segment_descriptor_type_is_refused(client):
    whole = parameter_list(e4(UNKNOWN, 0, BLOCK_SPECIFIC) * 2, b"\x7e" + COPY_ONE_BLOCK[1:])
    sense = refused(client, extended_copy(len(whole)), data_out=whole)
    assert code(sense) == (ILLEGAL_REQUEST, 0x2609)


def test_a_designator_that_names_no_unit_aborts_the_copy(client):
    """SPC-4 5.17.7.4: found out while the first segment is processed."""
    whole = parameter_list(
        designated(client, DISK, 0, BLOCK_SPECIFIC) + e4(UNKNOWN, 0, BLOCK_SPECIFIC), COPY_ONE_BLOCK
    )
    sense = refused(client, extended_copy(len(whole)), data_out=whole)
    assert code(sense) == (COPY_ABORTED, 0x0D02)


def designated(client: WireClient, lun: int, device_type: int, specific: bytes) -> bytes:
    """Return an E4 descriptor for a LUN, from its own VPD page 83h."""
    page = client.command(cdb("12 01 83 00ff 00"), lun=lun, data_in=255).data
    descriptor = page[4:]
    assert descriptor[0] & 0x0F == 1
    assert descriptor[1] & 0x3F == 3  # association LU, type NAA
    return e4(descriptor[4 : 4 + descriptor[3]], device_type, specific)


@pytest.mark.parametrize("tape_is", ["source", "destination"])
def test_a_tape_pointed_at_as_disk_aborts_the_copy(client, tape_is):
    disk = designated(client, DISK, 0, BLOCK_SPECIFIC)
    tape = designated(client, TAPE, 0, BLOCK_SPECIFIC)
    cscds = tape + disk if tape_is == "source" else disk + tape
    whole = parameter_list(cscds, COPY_ONE_BLOCK)
    sense = refused(client, extended_copy(len(whole)), data_out=whole)
    assert code(sense) == (COPY_ABORTED, 0x0D03)
    assert int.from_bytes(sense[8:12], "big") & 0xFFFF == 0  # segment 0


def test_a_disk_command_to_the_tape_is_refused(client):
    """2Ah is no SSC command; 28h neither."""
    sense = refused(client, cdb("28 00 00000000 00 0001 00"), TAPE, data_in=512)
    assert code(sense) == (ILLEGAL_REQUEST, 0x2000)
    sense = refused(client, cdb("2a 00 00000000 00 0001 00"), TAPE, data_out=bytes(512))
    assert code(sense) == (ILLEGAL_REQUEST, 0x2000)


@pytest.mark.parametrize("command", ["08 01 000001 00", "08 03 000001 00", "0a 01 000001 00"])
def test_fixed_blocks_are_refused_where_none_are_set(client, command):
    """SSC-3 5.6, 6.8: FIXED with a block length of zero, and FIXED with SILI."""
    bits = cdb(command)
    data = {"data_out": bytes(512)} if bits[0] == 0x0A else {"data_in": 512}
    assert code(refused(client, bits, TAPE, **data)) == (ILLEGAL_REQUEST, 0x2400)
