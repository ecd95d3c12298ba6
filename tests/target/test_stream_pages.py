"""Attributes of the medium and log pages: what they say is what happened."""

import pytest

from serverfree.scsi.attributes import HOST
from serverfree.scsi.log import unpack_log_page
from serverfree.scsi.sense import FieldPointer
from support.tape import LOAD, REWIND, UNLOAD, filemarks, make_drive, read, sense, write

MIB = 1 << 20


@pytest.fixture
def drive(tmp_path):
    drive = make_drive(tmp_path / "tape", capacity=64 * MIB)
    yield drive
    drive.unit.close()


def attribute(identifier, action=0, partition=0):
    cdb = bytes((0x8C, action, 0, 0, 0, 0, 0, partition)) + identifier.to_bytes(2, "big")
    return cdb + (65_535).to_bytes(4, "big") + b"\0\0"


def value(drive, identifier, partition=0):
    data = drive.good(attribute(identifier, partition=partition))
    assert int.from_bytes(data[4:6], "big") == identifier
    return data[9 : 9 + int.from_bytes(data[7:9], "big")]


def write_attribute(identifier, form, data, partition=0):
    body = identifier.to_bytes(2, "big") + bytes((form,)) + len(data).to_bytes(2, "big") + data
    body = len(body).to_bytes(4, "big") + body
    cdb = bytes((0x8D, 0, 0, 0, 0, 0, 0, partition, 0, 0)) + len(body).to_bytes(4, "big") + b"\0\0"
    return cdb, body


def log(drive, page):
    """A log page as {parameter code: value}."""
    data = drive.good(bytes((0x4D, 0, 0x40 | page, 0, 0, 0, 0, 0xFF, 0xFF, 0)))
    code, _, parameters = unpack_log_page(data)
    assert code == page
    return {each.code: each.value for each in parameters}


def number(drive, page, code):
    return int.from_bytes(log(drive, page)[code], "big")


class TestAttributes:
    def test_capacity_follows_what_is_written(self, drive):
        assert [int.from_bytes(value(drive, each), "big") for each in (0, 1)] == [64, 64]
        for _ in range(10):
            drive.good(write(MIB), bytes(MIB))
        assert [int.from_bytes(value(drive, each), "big") for each in (0, 1)] == [53, 64]

    def test_of_hosts_last_and_can_be_taken_back(self, drive):
        drive.good(*write_attribute(0x0806, 1, b"ABC123L5".ljust(32)))
        drive.good(*write_attribute(0x0803, 2, b"Jahresende"))
        drive.good(UNLOAD)
        drive.good(LOAD)
        assert value(drive, 0x0806) == b"ABC123L5".ljust(32)
        assert drive.good(attribute(0x0803))[6] == 2, "read-write text"
        drive.good(*write_attribute(0x0803, 2, b""))
        expected = sense(5, 0x2400)
        expected.pointer = FieldPointer(8, in_cdb=True)
        assert drive.sense(attribute(0x0803)) == expected

    def test_formats_are_counted(self, drive):
        assert int.from_bytes(value(drive, 7), "big") == 1
        drive.good(bytes.fromhex("04 00 00 00 00 00"))
        drive.good(bytes.fromhex("0b 00 00 80 00 00"))
        drive.good(UNLOAD)
        drive.good(LOAD)
        assert drive.good(attribute(7))[7:11] == bytes.fromhex("00 02 00 03")

    def test_coherency_is_kept_for_each_partition(self, drive):
        drive.unit.medium.cartridge.format([32 * MIB, 32 * MIB])
        for partition in (0, 1):
            drive.good(*write_attribute(0x080C, 0, bytes((partition,)) * 70, partition))
        assert [value(drive, 0x080C, each) for each in (0, 1)] == [bytes(70), b"\1" * 70]

    @pytest.mark.parametrize(
        ("identifier", "form", "data", "byte"),
        [
            (0x0000, 0, bytes(8), 4),
            (0x0401, 1, b"X", 4),
            (0x0999, 1, b"X", 4),
            (0x0800, 0, b"X", 6),
            (0x0800, 1, b"X" * 9, 7),
        ],
    )
    def test_what_no_host_may_write(self, drive, identifier, form, data, byte):
        refused = drive.sense(*write_attribute(identifier, form, data))
        assert (refused.asc, refused.pointer.byte) == (0x2600, byte)

    def test_a_list_with_one_wrong_attribute_writes_none(self, drive):
        good, bad = write_attribute(0x0800, 1, b"US")[1][4:], write_attribute(0, 0, b"\0")[1][4:]
        body = (len(good) + len(bad)).to_bytes(4, "big") + good + bad
        cdb = bytes((0x8D,)) + bytes(9) + len(body).to_bytes(4, "big") + b"\0\0"
        assert drive.sense(cdb, body).asc == 0x2600
        assert drive.sense(attribute(0x0800)).asc == 0x2400

    @pytest.mark.parametrize("cut", [3, 6, 10])
    def test_torn_list(self, drive, cut):
        cdb, body = write_attribute(0x0800, 1, b"US")
        cdb = cdb[:10] + cut.to_bytes(4, "big") + b"\0\0"
        assert drive.sense(cdb, body[:cut]).asc == 0x1A00

    @pytest.mark.parametrize("length", ["00 00 00 00", "00 00 00 11", "ff ff ff ff"])
    def test_length_that_the_list_gives_itself_is_not_looked_at(self, drive, length):
        """SPC-4 6.48: "shall be ignored". LTFS 2.4.8 counts the header in; this is its list."""
        body = bytes.fromhex(length + "08 00 01 00 08") + b"IBM     "
        drive.good(bytes.fromhex("8d 01 00 00 00 00 00 00 00 00 00 00 00 11 00 00"), body)
        assert value(drive, 0x0800) == b"IBM     "

    def test_attributes_out_of_order(self, drive):
        """SPC-4 6.48: none is changed."""
        first, second = (write_attribute(each, 1, b"US")[1][4:] for each in (0x0801, 0x0800))
        body = bytes(4) + first + second
        cdb = bytes((0x8D,)) + bytes(9) + len(body).to_bytes(4, "big") + b"\0\0"
        refused = drive.sense(cdb, body)
        assert (refused.asc, refused.pointer.byte) == (0x2600, 4 + len(first))
        assert drive.sense(attribute(0x0801)).asc == 0x2400

    def test_there_is_room_for_all_that_hosts_may_write(self, drive):
        drive.unit.medium.cartridge.format([16 * MIB] * 4)
        written = 0
        for identifier, rule in HOST.items():
            for partition in range(4 if rule.per_partition else 1):
                text = bytes(rule.length)
                drive.good(*write_attribute(identifier, rule.format, text, partition))
                written += 5 + rule.length
        room, capacity = (int.from_bytes(value(drive, each), "big") for each in (0x0004, 0x0407))
        assert room == capacity - written > 0

    def test_lists(self, drive):
        drive.good(*write_attribute(0x0800, 1, b"US"))
        listed = drive.good(attribute(0, 1))
        assert int.from_bytes(listed[:4], "big") == len(listed) - 4
        assert listed[-2:] == bytes.fromhex("08 00")
        assert drive.good(attribute(0, 2)) == bytes.fromhex("00 02 00 01")
        assert drive.good(attribute(0, 3)) == bytes.fromhex("00 02 00 01")
        assert bytes.fromhex("08 0c") in drive.good(attribute(0, 5))

    def test_partition_and_volume_that_are_not_there(self, drive):
        for cdb, byte in (
            (attribute(0, partition=1), 7),
            (attribute(0)[:5] + b"\1" + bytes(10), 5),
        ):
            expected = sense(5, 0x2400)
            expected.pointer = FieldPointer(byte, in_cdb=True)
            assert drive.sense(cdb) == expected

    def test_loads_drives_and_bytes_are_counted(self, drive):
        for _ in range(3):
            drive.good(write(MIB), bytes(MIB))
        drive.good(REWIND)
        drive.good(read(MIB))
        assert [int.from_bytes(value(drive, each), "big") for each in (3, 0x220, 0x221)] == [
            1,
            3,
            1,
        ]
        drive.good(UNLOAD)
        drive.good(LOAD)
        assert [int.from_bytes(value(drive, each), "big") for each in (3, 0x220, 0x222)] == [
            2,
            3,
            0,
        ]
        assert (
            value(drive, 0x20A)
            == value(drive, 0x20B)
            == (b"SRVFREE " + drive.unit.serial.encode()).ljust(40)
        )

    def test_write_protection(self, drive):
        drive.unit.medium.cartridge.protect(True)
        assert drive.sense(*write_attribute(0x0800, 1, b"US")) == sense(7, 0x2700)


class TestLogs:
    def test_pages_that_there_are(self, drive):
        data = drive.good(bytes.fromhex("4d 00 40 00 00 00 00 00 ff 00"))
        assert data[4:].hex(" ") == "00 02 03 0c 0d 11 12 14 17 2e 30 31 32 37"

    def test_every_page_without_a_medium_too(self, drive):
        pages = (2, 3, 0xC, 0xD, 0x11, 0x12, 0x14, 0x17, 0x2E, 0x30, 0x31, 0x32)
        assert all(log(drive, page) for page in pages)
        drive.good(UNLOAD)
        assert all(log(drive, page) for page in pages)
        assert log(drive, 0x17) == {0: b"\0"}, "page not valid"

    def test_bytes_and_position(self, drive):
        for _ in range(3):
            drive.good(write(2_000_000), bytes(2_000_000))
        drive.good(REWIND)
        drive.good(read(2_000_000))
        assert [number(drive, 0xC, code) for code in (0, 1, 2, 3, 4, 7)] == (
            [6_000_000, 6_000_000, 2_000_000, 2_000_000, 6, 2]
        )
        assert (number(drive, 2, 5), number(drive, 3, 5)) == (6_000_000, 2_000_000)
        assert [number(drive, 0x17, code) for code in (0x10, 0x11, 0x17)] == [6, 2, 6]
        assert log(drive, 0x17)[0x204] == bytes.fromhex("07 00 00 00") + (61).to_bytes(4, "big")
        assert [number(drive, 0x31, code) for code in (1, 3)] == [58, 64]

    def test_barcode_is_the_one_that_was_written(self, drive):
        assert log(drive, 0x17)[0x42] == b" " * 32
        drive.good(*write_attribute(0x0806, 1, b"ABC123L5"))
        assert log(drive, 0x17)[0x42] == b"ABC123L5".ljust(32)

    def test_log_select_begins_anew_but_not_the_life_of_the_medium(self, drive):
        drive.good(write(2_000_000), bytes(2_000_000))
        drive.good(bytes.fromhex("4c 02 40 00 00 00 00 00 00 00"))
        assert (number(drive, 0xC, 0), number(drive, 0x17, 0x10)) == (0, 2)

    def test_what_happened_in_the_last_load(self, drive):
        """Page 17h, 0Ch to 0Fh: unrecovered errors and megabytes; LTFS asks for the errors."""
        codes = (0x0C, 0x0D, 0x0E, 0x0F)
        drive.good(write(2_000_000), bytes(2_000_000))
        drive.unit.count_read_error(drive.unit.medium)
        assert [number(drive, 0x17, code) for code in codes] == [0, 0, 0, 0], "not over yet"
        drive.good(UNLOAD)
        drive.good(LOAD)
        assert [number(drive, 0x17, code) for code in codes] == [0, 1, 2, 0]
        drive.good(read(2_000_000))
        drive.unit.count_write_error(drive.unit.medium)
        drive.good(UNLOAD)
        drive.good(LOAD)
        assert [number(drive, 0x17, code) for code in codes] == [1, 0, 0, 2]

    def test_tape_alert_is_told_once(self, drive):
        drive.unit.medium.cartridge.protect(True)
        drive.sense(write(1), b"x")
        assert log(drive, 0x12)[0] == bytes.fromhex("00 80 00 00 00 00 00 00")
        alerts = log(drive, 0x2E)
        assert sorted(alerts) == list(range(1, 65))
        assert [flag for flag, state in alerts.items() if state == b"\1"] == [9]
        assert not any(int.from_bytes(state, "big") for state in log(drive, 0x2E).values())

    def test_a_reset_takes_tape_alerts_back(self, drive):
        drive.unit.medium.cartridge.protect(True)
        drive.sense(write(1), b"x")
        drive.unit.reset()
        drive.unit.attentions.take(drive.nexus)
        assert log(drive, 0x12)[0] == bytes(8)

    def test_no_removal_alert(self, drive):
        drive.good(bytes.fromhex("1e 00 00 00 01 00"))
        assert drive.sense(UNLOAD) == sense(5, 0x5302)
        assert log(drive, 0x2E)[10] == b"\1"

    @pytest.mark.parametrize(
        ("cdb", "byte"),
        [
            ("4d 01 40 00 00 00 00 00 ff 00", 1),
            ("4d 00 00 00 00 00 00 00 ff 00", None),
            ("4d 00 7e 00 00 00 00 00 ff 00", 2),
            ("4d 00 57 01 00 00 00 00 ff 00", 3),
            ("4d 00 57 00 00 ff ff 00 ff 00", 5),
        ],
    )
    def test_what_cannot_be_asked(self, drive, cdb, byte):
        reply = drive(bytes.fromhex(cdb))
        if byte is not None:
            assert (reply.sense.asc, reply.sense.pointer.byte) == (0x2400, byte)

    def test_parameter_pointer(self, drive):
        page = drive.good(bytes.fromhex("4d 00 57 00 00 02 04 00 ff 00"))
        assert page[4:8] == bytes.fromhex("02 04 03 08")


def test_vital_product_data(drive):
    pages = drive.good(bytes.fromhex("12 01 00 00 ff 00"))
    assert set(bytes.fromhex("00 80 83 86 b0 b1 b2 b5")) <= set(pages[4:])
    alerts = drive.good(bytes.fromhex("12 01 b2 00 ff 00"))
    assert alerts == bytes.fromhex("01 b2 00 08 2c c0 00 00 00 00 02 10")
    assert drive.good(bytes.fromhex("12 01 b0 00 ff 00")) == bytes.fromhex("01 b0 00 02 01 00")


def test_a_damaged_memory_costs_no_data(drive, tmp_path):
    drive.good(write(4), b"data")
    drive.good(filemarks(1))
    drive.unit.close()
    (tmp_path / "tape" / "memory.json").write_text('{"memory": "{}", "crc32c": 1}')
    again = make_drive(tmp_path / "tape", capacity=64 * MIB)
    assert again.good(read(4)) == b"data"
    assert number(again, 0x17, 1) == 1
    again.unit.close()
