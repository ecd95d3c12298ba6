"""What LTFS sends to a drive, in its order, and the answers that it goes by.

Recorded from mkltfs, ltfs and ltfsck of LTFS 2.4.8.4 (backend sg) while they made, mounted, wrote,
checked and wiped a cartridge in profile lto7. Commands that repeat are left out, and so is what
LTFS does not look at in an answer.
"""

import re

import pytest

from serverfree.scsi.opcodes import cdb_length
from serverfree.scsi.status import Status
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.units.command import Nexus
from serverfree.target.units.stream import StreamUnit
from serverfree.target.units.stream_profile import PROFILES
from support.tape import Drive, read, sense, write

MB = 1_000_000
INDEX, DATA = 0, 1  # partitions
KEY = "40 00 00 00 c0 00 02 02"
LABELS = (b"VOL1ABC123L" + b" " * 68 + b"4", b"<ltfslabel/>" * 40)
BLOCK = 524_288  # of files and indexes

OPEN = f"""
a3 0c 80 00 00 00 00 00 10 00
5f 06 00 00 00 00 00 00 18 < 00 00 00 00 00 00 00 00 {KEY}
5f 01 03 00 00 00 00 00 18 < {KEY}
1e
05 > 00
1b 00 00 00 01
34 06 > 80 00 00 00 00 00 00 00
5a 00 3f 00 00 00 00 00 ff > .. .. 78 10 00 00 00 08 5c
1e 00 00 00 01
5a 00 0a f0 00 00 00 00 30 > 00 2e 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 4a f0 00 1c 00
55 10 00 00 00 00 00 00 30 < 00 00 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 4a f0 00 1c
4d 00 57 00 00 00 00 ff ff > 17
5a 00 10 00 00 00 00 00 20 > 00 1e 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 10 0e
5a 00 10 01 00 00 00 00 30 > 00 2e 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 50 01 00 1c 00 00
"""
ANYWHERE, APPEND_ONLY = (
    f"""
55 10 00 00 00 00 00 00 30 < 00 00 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 50 01 00 1c {mode}
5a 00 10 01 00 00 00 00 30 > 00 2e 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 50 01 00 1c {mode}
1b 00 00 00 01
"""
    for mode in ("00 00 00 00", "00 10 01 dc")  # WRITE MODE; PEWS, 476 MB: half the index partition
)
PARTITION = """
0b 00 00 ff ff
1b 00 00 00 01
5a 00 11 00 00 00 00 00 1c > 00 1e 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 11 0e 03 00
55 10 00 00 00 00 00 00 20 < 00 00 78 10 00 00 00 08 5c 00 00 00 00 00 00 00
                             11 0e 03 01 3c 03 09 00 00 01 ff ff 00 00 00 00
04 00 01
5a 00 0f 00 00 00 00 00 20 > 00 1e 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 0f 0e 40 80
55 10 00 00 00 00 00 00 20 < 00 00 78 10 00 00 00 08 5c 00 00 00 00 00 00 00
                             0f 0e c0 80 00 00 00 ff 00 00 00 ff
"""
WIPE = """
1b 00 00 00 01
5a 00 11 00 00 00 00 00 1c > 00 1e 78 10 00 00 00 08 5c 00 00 00 00 00 00 00
                             11 0e 03 01 1c 03 06 00 03 e8
55 10 00 00 00 00 00 00 20 < 00 00 78 10 00 00 00 08 5c 00 00 00 00 00 00 00
                             11 0e 03 00 3c 03 08 00 ff ff
04 00 01
"""
CLOSE = f"""
1e
5f 02 03 00 00 00 00 00 18 < {KEY}
55 10 00 00 00 00 00 00 30 < 00 00 78 10 00 00 00 08 5c 00 00 00 00 00 00 00 4a f0 00 1c
5f 06 00 00 00 00 00 00 18 < 00
"""
EJECT = """
1e
01
1b
00 ! 2 3a00
5a 00 10 01 00 00 00 00 30 > 00 2e 00 10 00 00 00 08 5c 00 00 00 00 00 00 00 50 01 00 1c 00 10
55 10 00 00 00 00 00 00 30 < 00 00 00 10 00 00 00 08 5c 00 00 00 00 00 00 00 50 01 00 1c
"""


def play(drive, script):
    """Send what stands before < > and !, with the data behind <; the answer is as they say.

    CDB and data-out are filled up with zeros; data-in begins like this, `..` being any byte.
    """
    for line in re.sub(r"\n +", " ", script).split("\n"):
        if not line:
            continue
        command, mark, rest = re.fullmatch(r"(.*?)(?: ([<>!]) (.*))?", line).groups()
        cdb = bytes.fromhex(command)
        cdb = cdb.ljust(cdb_length(cdb), b"\0")
        if mark == "!":
            key, code = rest.split()
            assert drive.sense(cdb) == sense(int(key), int(code, 16)), line
        elif mark == "<":
            length = int.from_bytes(cdb[5:9] if cdb[0] == 0x5F else cdb[7:9], "big")
            drive.good(cdb, bytes.fromhex(rest).ljust(length, b"\0"))
        else:
            pattern = re.compile((rest or "").replace("..", "[0-9a-f]{2}"))
            assert pattern.match(drive.good(cdb).hex(" ")), line


class Ltfs:
    """The sequences that are put together of few commands, on a drive."""

    def __init__(self, drive):
        self.drive = drive

    def position(self):
        """READ POSITION, long form: partition, block, file."""
        data = self.drive.good(bytes.fromhex("34 06 00 00 00 00 00 00 00 00"))
        numbers = (int.from_bytes(data[at:end], "big") for at, end in ((4, 8), (8, 16), (16, 24)))
        return tuple(numbers)

    def locate(self, partition, block=0):
        self.drive.good(bytes((0x92, 2, 0, partition)) + block.to_bytes(8, "big") + bytes(4))
        assert self.position()[:2] == (partition, block)

    def locate_end(self, partition):
        cdb = bytes((0x92, 2, 0, partition)) + b"\xff" * 8 + bytes(4)
        assert self.drive.sense(cdb) == sense(8, 0x0005)
        return self.position()[1]

    def marks(self, count):
        """SPACE(16) over filemarks."""
        self.drive.good(b"\x91\x01\0\0" + count.to_bytes(8, "big", signed=True) + bytes(4))
        return self.position()[1]

    def mark(self, *, immediate=True):
        self.drive.good(bytes((0x10, immediate, 0, 0, 1, 0)))

    def write(self, content):
        self.drive.good(write(len(content)), content)

    def take_to_mark(self, content):
        """Read a label or an index of one block, and the filemark behind it."""
        length = 4096 if content in LABELS else BLOCK
        if content in LABELS:
            assert self.drive.good(read(length, sili=True)) == content
        else:  # without SILI: the data comes with the sense
            reply = self.drive(read(length))
            assert bytes(reply.data) == content
            expected = sense(0, 0, length - len(content), ili=True)
            assert reply.sense.information == expected.information
            assert reply.sense.ili
        expected = sense(0, 0x0001, length, filemark=True)
        assert self.drive.sense(read(length)) == expected

    def reference(self):
        """The volume change reference, MAM 0009h."""
        data = self.drive.good(bytes.fromhex("8c 00 00 00 00 00 00 00 00 09 00 00 00 0d 00 00"))
        assert data[4:9] == bytes.fromhex("00 09 80 00 04")
        return data[9:13]

    def give(self, identifier, form, value, partition=0):
        """WRITE ATTRIBUTE: one at a time, WTC set, the header counted in its own length."""
        attribute = identifier.to_bytes(2, "big") + bytes((form, 0, len(value))) + value
        body = (4 + len(attribute)).to_bytes(4, "big") + attribute
        head = bytes((0x8D, 1, 0, 0, 0, 0, 0, partition, 0, 0))
        self.drive.good(head + len(body).to_bytes(4, "big") + b"\0\0", body)

    def take(self, identifier, length, partition=0):
        head = bytes((0x8C, 0, 0, 0, 0, 0, 0, partition)) + identifier.to_bytes(2, "big")
        data = self.drive.good(head + (9 + length).to_bytes(4, "big") + b"\0\0")
        assert int.from_bytes(data[4:6], "big") == identifier
        return data[9:]

    def coherent(self, generation, blocks):
        """Say in both partitions which index is the last: MAM 080Ch."""
        reference = self.reference()
        for partition in (INDEX, DATA):
            value = b"\x08" + reference.rjust(8, b"\0") + generation.to_bytes(8, "big")
            value += blocks[partition].to_bytes(8, "big") + b"\0\x2bLTFS\0" + b"e" * 36 + b"\0\1"
            self.give(0x080C, 0, value, partition)
            assert self.take(0x080C, len(value), partition) == value
        assert self.reference() == reference, "attributes are not the volume"

    def mounted(self):
        """Open, read the labels of both partitions."""
        play(self.drive, OPEN)
        for partition in (INDEX, DATA):
            self.locate(partition)
            for label in LABELS:
                self.take_to_mark(label)

    def make(self):
        """Format and write labels and the first index, as mkltfs does."""
        play(self.drive, OPEN + ANYWHERE + PARTITION)
        for partition in (DATA, INDEX):
            self.locate(partition)
            for label in LABELS:
                self.write(label)
                self.mark()
            assert (
                self.drive.sense(
                    bytes.fromhex("8c 00 00 00 00 00 00 00 16 23 00 00 00 0a 00 00")
                ).asc
                == 0x2400
            ), "no lock yet"
            self.mark()
            self.write(b"<ltfsindex generation=1/>")
            self.mark()
            assert self.position() == (partition, 7, 4)
        self.coherent(1, {INDEX: 5, DATA: 5})
        self.give(0x0800, 1, b"IBM     ")
        self.give(0x0801, 1, b"LTFS".ljust(32))
        self.give(0x0802, 1, b"2.4.8.4 ")
        self.give(0x0803, 2, b"test".ljust(160, b"\0"))
        self.give(0x0805, 0, b"\x81")
        self.give(0x0806, 1, b"ABC123".ljust(32))
        self.give(0x080B, 1, b"2.4.0".ljust(16))
        self.give(0x1623, 0, b"\0")
        self.give(0x0808, 2, bytes(160))
        play(self.drive, CLOSE)


@pytest.fixture
def drive(tmp_path):
    cartridge = open_cartridge(tmp_path / "tape", 4_000 * MB)
    nexus = Nexus("iqn.test:initiator", "iqn.test:target")
    unit = StreamUnit("t", cartridge, target="iqn.test:target", profile=PROFILES["lto7"])
    unit.attach(nexus)
    unit.attentions.take(nexus)
    yield Drive(unit, nexus)
    unit.close()


@pytest.fixture
def volume(drive):
    ltfs = Ltfs(drive)
    ltfs.make()
    return ltfs


def append(volume, generation, *, careful):
    """Write a file of two and a half blocks, then the index into both partitions."""
    content = [bytes((generation, at)) * (size // 2) for at, size in enumerate((BLOCK, BLOCK, 999))]
    begin = volume.locate_end(DATA)
    for block in content:
        volume.write(block)
    index = b"<ltfsindex generation=%d/>" % generation
    volume.mark()
    at = volume.position()[1]
    volume.write(index)
    volume.mark(immediate=False)
    volume.coherent(generation, {INDEX: 5, DATA: at})
    # The index partition holds the last index only: it is written over, behind the labels.
    volume.locate(INDEX, 4)
    if careful:
        play(volume.drive, "82 00 01 00 00 00 00 00 00 00 00 04")
    volume.mark()
    volume.write(index)
    volume.mark(immediate=False)
    assert volume.position() == (INDEX, 7, 4)
    volume.coherent(generation, {INDEX: 5, DATA: at})
    return begin, [*content[:2], content[2]], index


def test_made_and_mounted_again(volume):
    reference = volume.reference()
    volume.mounted()
    assert volume.reference() == reference, "nothing has been written since"
    assert volume.take(0x080C, 70)[5:9] == reference
    assert volume.take(0x0801, 32) == b"LTFS".ljust(32)
    assert [each.capacity for each in volume.drive.unit.medium.cartridge.partitions] == [
        1000 * MB,
        3000 * MB,
    ]


def test_a_file_appended_and_read_after_the_next_mount(volume):
    volume.mounted()
    begin, content, index = append(volume, 2, careful=False)
    play(volume.drive, CLOSE)
    volume.mounted()
    volume.locate(INDEX, 5)
    volume.take_to_mark(index)
    assert volume.marks(-1) == 6
    assert volume.marks(1) == 7
    volume.locate(DATA, begin)
    for block in content:
        assert volume.drive.good(read(BLOCK, sili=True)) == block


def test_append_only_and_ejected(volume):
    """`-o eject`: data behind the end, the index over the old one by ALLOW OVERWRITE."""
    play(volume.drive, OPEN + APPEND_ONLY)
    volume.locate(INDEX, 4)
    refused = volume.drive.sense(write(4), b"oops")
    assert (refused.key, refused.asc) == (7, 0x5A02)
    append(volume, 2, careful=True)
    play(volume.drive, EJECT)
    volume.mounted()


def test_the_last_index_is_found_from_the_end(volume):
    """ltfsck: back over filemarks from the end of data, in both partitions."""
    for generation in (2, 3):
        begin, _, index = append(volume, generation, careful=False)
    for partition, end in ((INDEX, 7), (DATA, begin + 6)):
        assert volume.locate_end(partition) == end
        assert volume.marks(-1) == end - 1
        assert volume.marks(-1) == end - 3
        assert volume.marks(1) == end - 2
        volume.take_to_mark(index)
        assert volume.position()[1] == end


def test_another_host_is_kept_out_and_sees_who_is_there(volume):
    """It registers, may not reserve, and finds the holder by READ FULL STATUS."""
    volume.mounted()
    drive, key = volume.drive, bytes.fromhex(KEY)
    other = Nexus("iqn.test:other", "iqn.test:target")
    drive.unit.attach(other)
    drive.unit.attentions.take(other)
    register = bytes.fromhex("5f 06 00 00 00 00 00 00 18 00")
    assert drive(register, bytes(8) + key + bytes(8), other).status is Status.GOOD
    reserve = bytes.fromhex("5f 01 03 00 00 00 00 00 18 00")
    assert drive(reserve, key + bytes(16), other).status is Status.RESERVATION_CONFLICT
    found = bytes(drive(bytes.fromhex("5e 03 00 00 00 00 00 00 f8 00"), b"", other).data)[8:]
    holders = []
    while found:
        length = 24 + int.from_bytes(found[20:24], "big")
        descriptor, found = found[:length], found[length:]
        assert descriptor[:8] == key
        if descriptor[12] & 1:  # R_HOLDER
            holders.append((descriptor[13], descriptor[28:].rstrip(b"\0")))
    assert holders == [(3, drive.nexus.initiator.encode())]
    append(volume, 2, careful=False)


def test_capacity_of_the_partitions(volume):
    """Log page 17h, parameters 0202h to 0204h: a record of eight bytes for each."""
    page = volume.drive.good(bytes.fromhex("4d 00 57 00 00 02 02 ff ff 00"))[4:]
    for code in (0x0202, 0x0203, 0x0204):
        assert page[:4] == code.to_bytes(2, "big") + bytes.fromhex("03 10")
        records, page = page[4:20], page[20:]
        assert (records[:4], records[8:12]) == (bytes((7, 0, 0, 0)), bytes((7, 0, 0, 1)))


def test_wiped(volume):
    """mkltfs --wipe: one partition again, and nothing of what was there."""
    play(volume.drive, OPEN + ANYWHERE + WIPE + CLOSE)
    assert len(volume.drive.unit.medium.cartridge.partitions) == 1
    assert volume.drive.sense(read(4096, sili=True)) == sense(8, 0x0005, 4096)
