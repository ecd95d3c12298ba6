"""Parameter lists from descriptions, held to bytes put together by hand from SPC-4's tables."""

import json

import pytest

from serverfree.initiator.copy_description import DescriptionError, describe, load_copy
from serverfree.initiator.copy_listing import annotate_copy
from serverfree.initiator.copy_plan import Endpoint
from serverfree.scsi.designator import Designator, DesignatorType
from serverfree.scsi.inquiry import DeviceType

DISK = Endpoint(Designator(DesignatorType.NAA, bytes.fromhex("3000000000000001")),
                DeviceType.DISK, 1000, 4096)  # fmt: skip
URL = "iscsi://127.0.0.1/iqn.2026-11.com.example:storage/0"
DISK_CSCD = bytes.fromhex(
    "e4 00 0000  01 03 00 08 3000000000000001 00000000 00000000 00000000  00 001000"
)
TAPE_CSCD = bytes.fromhex(
    "e4 01 0000  01 03 00 08 3000000000000002 00000000 00000000 00000000  04 000000"
)

TOML = f"""
list_identifier = 7
list_id_usage = "discard"
priority = 3

[[cscd]]
name = "disk"
url = "{URL}"

[[cscd]]
name = "tape"
designator = "naa.3000000000000002"
device-type = "tape"
pad = true

[[segment]]
type = "inline to stream"
destination = "tape"
stream_transfer_length = "256KiB"
data = {{ hex = "0102 0304 05" }}
cat = true

[[segment]]
type = "inline-to-stream"
destination = "tape"
stream_transfer_length = "0x40000"
data = {{ file = "header.bin" }}
cat = true

[[segment]]
type = 0x00
source = "disk"
destination = "tape"
stream-transfer-length = 262144
number-of-blocks = 64
lba = "4GiB"

[[segment]]
type = "write filemarks"
destination = "tape"

[[segment]]
raw = "42 00 0004 00010002"
"""

LIST = (
    bytes.fromhex("07 13 0040 00000000 00000054 0000000c")
    + DISK_CSCD
    + TAPE_CSCD
    + bytes.fromhex("04 01 0010 0000 0001 00 040000 00000000 00000005")
    + bytes.fromhex("04 01 0010 0000 0001 00 040000 00000008 00000004")
    + bytes.fromhex("00 00 0014 0000 0001 00 040000 0000 0040 0000000100000000")
    + bytes.fromhex("10 00 0008 0000 0001 00 000001")
    + bytes.fromhex("42 00 0004 0001 0002")
    + b"\1\2\3\4\5\0\0\0HEAD"
)


def look_up(url):
    assert url == URL
    return DISK


def test_a_description_becomes_the_bytes_of_the_tables(tmp_path):
    (tmp_path / "header.bin").write_bytes(b"HEAD")
    path = tmp_path / "copy.toml"
    path.write_text(TOML)
    # 14h + 14h + 18h + 0Ch + 08h bytes of segments: 54h.
    assert load_copy(path, look_up).pack().hex(" ") == LIST.hex(" ")


def test_json_says_the_same(tmp_path):
    path = tmp_path / "copy.json"
    description = {
        "list_id_usage": "none",
        "list_identifier": 0,
        "sequential_striped": True,
        "cscd": [{"url": URL, "block_length": 512}],
        "segment": [
            {
                "type": "block to block",
                "source": 0,
                "destination": "this unit",
                "number_of_blocks": 2,
                "source_lba": 3,
                "destination_lba": 4,
                "dc": True,
            }
        ],
        "inline": [{"text": "ab"}, "6364"],
    }
    path.write_text(json.dumps(description))
    cscd = DISK_CSCD[:-3] + bytes.fromhex("000200")
    assert load_copy(path, look_up).pack() == (
        bytes.fromhex("00 39 0020 00000000 0000001c 00000004")
        + cscd
        + bytes.fromhex("02 02 0018 0000 ffff 0000 0002 0000000000000003 0000000000000004")
        + b"abcd"
    )


@pytest.mark.parametrize(
    ("designator", "packed"),
    [
        ("naa.5000c50012345678", "01 03 00 08 5000c50012345678"),
        ("eui.0011223344556677", "01 02 00 08 0011223344556677"),
        ("t10.IET 1", "02 01 00 05 4945542031"),
        ({"type": 8, "code_set": 3, "text": "iqn.a"}, "03 08 00 05 69716e2e61"),
        ({"type": 0, "association": 2, "hex": "ff"}, "01 20 00 01 ff"),
    ],
)
def test_designators(designator, packed):
    [cscd] = describe({"cscd": [{"designator": designator, "device_type": "disk"}]}, look_up).cscds
    assert cscd.pack() == (bytes(4) + bytes.fromhex(packed)).ljust(32, b"\0").replace(
        b"\0", b"\xe4", 1
    )


def test_units_by_address():
    """E5h and EAh: LUN, address, port, protocol 6; an EAh has two places among the ids."""
    entries = [
        {"address": "10.0.0.7", "lun": 3, "device_type": "disk", "block_length": 512},
        {"address": "[fe80::1]:3261", "lun": 0, "device_type": "tape", "pad": True},
        {"name": "third", "address": "10.0.0.8:99", "lun": 1, "device_type": "tape"},
    ]
    segment = {"type": "locate", "destination": "third", "logical_object_identifier": 0}
    copy = describe({"cscd": entries, "segment": [segment]}, look_up)
    assert b"".join(one.pack() for one in copy.cscds) == bytes.fromhex(
        "e5 00 0000 0003000000000000 0a000007 000000000000 0cbc 0000 0006 00 000200"
        "ea 01 0000 0000000000000000 fe800000000000000000000000000001 04 000000"
        "ff 00 0cbd 0006" + "00" * 26 + "e5 01 0000 0001000000000000 0a000008 000000000000 0063"
        "0000 0006 00 000000"
    )
    assert copy.segments[0].destination == 3
    lines = list(annotate_copy(copy))
    assert "  CSCD 0: E5h disk LUN 3 at 10.0.0.7 port 3260, blocks of 512" in lines
    assert "  CSCD 2: second half of the one before" in lines


def test_a_unit_by_alias():
    """E6h: LUN and alias of 8 bytes each, 8 reserved (table 141)."""
    entry = {"alias": 0x0102, "lun": 5, "device_type": "tape"}
    copy = describe({"cscd": [entry]}, look_up)
    assert copy.cscds[0].pack() == bytes.fromhex(
        "e6 01 0000 0005000000000000 0000000000000102 0000000000000000 00 000000"
    )
    assert "LUN 5 of alias 0000000000000102" in list(annotate_copy(copy))[2]


def test_rods_populated_and_from_tokens():
    copy = describe(
        {
            "inline": "aabbcc",
            "cscd": [
                {"name": "before", "rod": "change vulnerable", "return_token": True,
                 "lifetime": 0x1122, "inactivity": 0x3344},
                {"name": "given", "token": {"hex": "5a" * 512}, "delete_token": True},
            ],
            "segment": [
                {"type": "populate rod ranges", "source": "this unit", "destination": "before",
                 "ranges": [[1, 2], [3, 4]]},
                {"type": "populate rod range", "source": "this unit", "destination": "before",
                 "lba": 5, "number_of_blocks": 6},
            ],
        },
        lambda url: DISK,
    )  # fmt: skip
    packed = copy.pack()
    assert packed[16:48] == bytes.fromhex(
        "fe 00 0000 ffff 0000 00800001 00001122 00003344 0000 01 00 00000000 00000000"
    )
    assert packed[48:80] == bytes.fromhex(
        "fe 00 0000 f800 0000 00000000 00000000 00000000 0000 00 01 00000004 00000000"
    )
    assert packed[80:148] == bytes.fromhex(
        "be 00 002c ffff 0000 0000000000 01 0020 0000000000000001 00000002 00000000"
        "0000000000000003 00000004 00000000"
        "bf 00 0010 ffff 0000 0000000000000005 00000006"
    )
    assert packed[148:] == bytes.fromhex("aabbcc00") + b"Z" * 512
    lines = list(annotate_copy(copy))
    times = "lifetime 4386 s, inactivity 13124 s"
    assert f"  CSCD 0: FEh ROD of type 00800001h, {times} RETURN TOKEN" in lines
    assert "  CSCD 1: FEh ROD of the token at inline byte 4 DELETE TOKEN" in lines


def test_a_tape_of_fixed_blocks():
    entry = {"designator": "naa.3000000000000002", "device_type": 1, "block_length": "64KiB"}
    [cscd] = describe({"cscd": [entry]}, look_up).cscds
    assert cscd.pack()[28:] == bytes.fromhex("01 010000")


@pytest.mark.parametrize(
    ("segment", "packed"),
    [
        (
            {"type": "space", "destination": 1, "code": 1, "count": -2},
            "11 00 0008 0000 0001 01 fffffe",
        ),
        (
            {"type": "embedded to stream", "destination": 2, "stream_transfer_length": 512,
             "data": {"text": "abcde"}, "cat": True},
            "05 01 0014 0000 0002 00 000200 0005 0000 6162636465000000",
        ),
        (
            {"type": "verify cscd", "source": "null disk", "test_unit_ready": True},
            "07 00 0008 c000 0000 01 000000",
        ),
        (
            {"type": "block range to stream", "source": 0, "destination": 1,
             "stream_transfer_length": "1KiB", "number_of_bytes": 777, "lba": 3,
             "byte_offset": 17},
            "08 00 0018 0000 0001 00 000400 00000309 0000000000000003 0000 0011",
        ),
    ],
)  # fmt: skip
def test_segments_by_their_fields(segment, packed):
    [built] = describe({"segment": [segment]}, look_up).segments
    assert built.pack() == bytes.fromhex(packed)


def test_a_descriptor_as_it_stands():
    [cscd] = describe({"cscd": [{"raw": "e0" + "00" * 31}]}, look_up).cscds
    assert cscd.pack() == b"\xe0" + bytes(31)


SEGMENT = {"type": "locate", "destination": 0, "logical_object_identifier": 1}


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ([], "no table"),
        ({"cscds": []}, "no cscds here"),
        ({"cscd": {}}, r"write \[\[cscd\]\]"),
        ({"list_id_usage": "keep"}, "one of hold, discard, none"),
        ({"priority": "high"}, "priority: 'high' is not a size"),
        ({"priority": True}, "priority is a number"),
        ({"sequential_striped": 1}, "true or false"),
        ({"cscd": [{"designator": "naa.3000000000000002"}]}, "CSCD 0: device_type is missing"),
        ({"cscd": [{"designator": "naa.xy", "device_type": "disk"}]}, "CSCD 0: non-hexadecimal"),
        ({"cscd": [{"designator": "wwn.1", "device_type": "disk"}]}, "write naa.HEX"),
        ({"cscd": [{"designator": "naa.30", "device_type": 2}]}, "given as raw"),
        ({"cscd": [{"raw": "00", "name": "this unit"}]}, "taken"),
        ({"segment": [{"type": "copy"}]}, "block to stream"),
        ({"segment": [{"type": 0xFD}]}, "FDh"),
        ({"segment": [{**SEGMENT, "destination": "tape"}]}, "no CSCD is named 'tape'"),
        ({"segment": [{**SEGMENT, "lba": 1}]}, "segment 0: there is no lba here"),
        ({"segment": [{"type": "locate", "destination": 0}]}, "identifier is missing"),
        ({"segment": [{**SEGMENT, "logical_object_identifier": 1 << 32}]}, "does not fit"),
        ({"segment": [{**SEGMENT, "logical_object_identifier": -1}]}, "does not fit"),
        ({"priority": 8}, "does not fit"),
        ({"segment": [{"raw": {"bits": "01"}}]}, "hex|text|file"),
    ],
)
def test_what_it_does_not_say_clearly_is_refused(description, why):
    with pytest.raises(DescriptionError, match=why):
        describe(description, look_up)


def test_no_toml_is_no_traceback(tmp_path):
    path = tmp_path / "copy.toml"
    path.write_text("[[segment]")
    with pytest.raises(DescriptionError, match=r"copy\.toml"):
        load_copy(path, look_up)


def test_every_byte_is_shown_once_behind_the_words_that_it_stands_for(tmp_path):
    (tmp_path / "header.bin").write_bytes(b"HEAD")
    path = tmp_path / "copy.toml"
    path.write_text(TOML)
    lines = list(annotate_copy(load_copy(path, look_up)))
    shown = [line for line in lines if line[:6].isalnum() and line[6:8] == "  "]
    assert bytes.fromhex("".join(line[8:] for line in shown)) == LIST
    offsets = [int(line[:6], 16) for line in shown]
    assert offsets == sorted(set(offsets))
    at = lines.index("  segment 3: 10h write filemarks, 1, filemark count 1")
    assert lines[at + 1] == "000090  10 00 00 08 00 00 00 01 00 00 00 01"
    assert lines[at + 2] == "  segment 4: 42h as given, 8 bytes"
    assert lines[-2] == "  inline data"
