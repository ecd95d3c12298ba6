"""What a copy manager answers, decoded from bytes put together by hand from SPC-4's tables."""

import json

import pytest

from serverfree.cli.main import main
from serverfree.initiator.copy import CopyManager
from serverfree.initiator.copy_facts import DECODERS
from serverfree.initiator.copy_plan import Plan, Step
from serverfree.initiator.xcopy import CopyFailed, run_plan
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.device import Result
from serverfree.scsi.status import Status
from support.fake_devices import FakeDevice, give, sense_bytes

SENSE = sense_bytes(10, 0x0D01)
OPERATION = (
    "00000030 01 {status} 0007 000003e8 02 14 12 01 0000000000000400 0005 000000000000"
    + SENSE.hex()
    + "0000"
)

CREATOR = "e4 00 0000 01 03 00 08 3000000000000001" + "00" * 12 + "00 000200"
MANAGEMENT_TOKEN = "00800002 0000 01f8 0102030405060708" + CREATOR + "00" * 14 + "0c00" + "00" * 32

RESPONSES = {
    # Table 256: the header of table 248, a length, an id and a token of 512 bytes.
    ("tokens", True): (
        "00000222 10 01 0000 fffffffe 00 00 00 f1 0000000000000006 0000 000000000000"
        "00000202 0003" + MANAGEMENT_TOKEN + "5a" * 416,
        {
            "status": "completed",
            "response_to_service_action": "10h",
            "blocks_transferred": 6,
            "tokens": [
                {
                    "cscd": 3,
                    "rod_type": "00800002h persistent",
                    "identifier": "0102030405060708",
                    "creator": "naa.3000000000000001",
                    "bytes_represented": 3072,
                    "token": (MANAGEMENT_TOKEN + "5a" * 416).replace(" ", ""),
                }
            ],
        },
    ),
    # Table 278.
    ("all-tokens", False): (
        "000000c4 00000000" + MANAGEMENT_TOKEN + MANAGEMENT_TOKEN.replace("00800002", "ffffffff"),
        {
            "tokens": [
                {
                    "rod_type": name,
                    "identifier": "0102030405060708",
                    "creator": "naa.3000000000000001",
                    "bytes_represented": 3072,
                }
                for name in ("00800002h persistent", "FFFFFFFFh")
            ],
        },
    ),
    # Table 253: bit 7 is HELD DATA DISCARDED, the count is in KiB.
    ("status", False): (
        "00000008 81 0003 01 00000400",
        {
            "status": "completed",
            "segments_processed": 3,
            "bytes_transferred": 1 << 20,
            "held_data_discarded": True,
        },
    ),
    # Table 248, with 18 bytes of sense in a field of 20.
    ("status", True): (
        OPERATION.format(status="02"),
        {
            "status": "failed",
            "response_to_service_action": "01h",
            "operation_counter": 7,
            "update_delay_ms": 1000,
            "completion_status": "check condition",
            "segments_processed": 5,
            "bytes_transferred": 1 << 20,
            "held_data_discarded": False,
        },
    ),
    ("data", False): ("00000003 616263 ffff", {"bytes": 3, "data": "61 62 63"}),
    # Table 240: the same header, a length, the data.
    ("data", True): (
        "00000023 01 81 0000 fffffffe 00 00 00 f1 0000000000000004 0001 000000000000"
        "00000003 616263",
        {
            "status": "completed",
            "update_delay_ms": "ended",
            "bytes_transferred": None,
            "held_data_discarded": True,
            "sense": None,
            "data": "61 62 63",
        },
    ),
    # Table 246: 52 reserved bytes, status, one reserved, sense.
    ("failure", False): (
        "0000004a" + "00" * 52 + "02 00 0012" + SENSE.hex(),
        {"status": "check condition"},
    ),
    # Table 244.
    ("parameters", False): (
        "0000002d 01 000000 0040 4000 00400000 00000000 00100000 00000100 00ffffff 0000"
        "0004 03 00 02 01 000000 05 00 02 0a 7f e4",
        {
            "supports_no_list_identifier": True,
            "maximum_cscd_count": 64,
            "maximum_segment_count": 16384,
            "maximum_descriptor_list_length": 4 << 20,
            "maximum_segment_length": 0,
            "maximum_inline_data_length": 1 << 20,
            "held_data_limit": 256,
            "maximum_stream_transfer_size": 0xFFFFFF,
            "total_concurrent_copies": 4,
            "maximum_concurrent_copies": 3,
            "data_segment_granularity": 0,
            "inline_data_granularity": 2,
            "held_data_granularity": 1,
            "descriptor_types": [
                "00h block to stream",
                "02h block to block",
                "0Ah block range to block range",
                "7Fh",
                "E4h identification CSCD",
            ],
        },
    ),
    # VPD page 8Fh with descriptors 0001h, 000Ch and 8001h.
    ("capabilities", False): (
        "00 8f 003c 0001 000c 07 83 01 00 84 02 00 03 00000000"
        "000c 0004 0002 ffff"
        "8001 0020 00000040 00000020 00000000 09 00" + "00" * 18,
        {
            "commands": ["83h/00h", "84h/00h", "84h/03h"],
            "cscd_ids": ["FFFFh"],
            "total_concurrent_copies": 64,
            "maximum_concurrent_copies": 32,
            "data_segment_granularity": 9,
        },
    ),
}


@pytest.mark.parametrize("question", DECODERS)
def test_every_answer_is_decoded(question):
    text, expected = RESPONSES[question]
    facts = DECODERS[question](bytes.fromhex(text))
    assert {name: facts[name] for name in expected} == expected
    if SENSE.hex() in text:
        assert "COPY_ABORTED 0D/01" in facts["sense"]


@pytest.mark.parametrize("question", DECODERS)
def test_no_answer_cut_short_is_taken_for_a_whole_one(question):
    text, _ = RESPONSES[question]
    whole = bytes.fromhex(text)
    needed = (int.from_bytes(whole[2:4], "big") if whole[1] == 0x8F else 0) or int.from_bytes(
        whole[:4], "big"
    )
    for length in range(4 + needed):
        with pytest.raises(ValueError):
            DECODERS[question](whole[:length])


def test_nothing_to_tell_about_a_failure():
    assert DECODERS["failure", False](bytes(4)) == {"status": None, "sense": None}


def test_a_captured_answer_is_read_without_a_copy_manager(capsys):
    text, expected = RESPONSES["status", True]
    assert main(["copy-results", "--decode", text, "status", "--lid4", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {name: facts[name] for name in expected} == expected


@pytest.mark.parametrize(
    "words",
    [
        ["failure", "--decode", "00000000", "--lid4"],
        ["status"],
        ["status", "--decode", "xyz"],
        ["status", "--decode", "00", "--mover", "iscsi://127.0.0.1/iqn.a.b:c/0"],
    ],
)
def test_wrong_usage(words):
    with pytest.raises(SystemExit) as end:
        main(["copy-results", *words])
    assert end.value.code == 2


# ---------------------------------------------------------------------- 32-bit list identifiers


class Background(FakeDevice):
    """A copy manager that answers at once and copies on: two questions later it has ended."""

    device_type = 3

    def __init__(self, end):
        super().__init__()
        self.statuses = ["12", "11", end]

    def command(self, cdb, out, into):
        if cdb[:2] == b"\x83\x01":
            self.list = bytes(out)
            return Result(Status.GOOD)
        if cdb[:2] == b"\x84\x05":
            assert cdb[2:6] == b"\x00\x01\x00\x02"
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            return give(into, bytes.fromhex(OPERATION.format(status=status)))
        assert cdb == b"\x83\x1c\x00\x01\x00\x02" + bytes(10)
        return Result(Status.GOOD)


COPY = CopyList((), (), b"", 0x10002, lid4=True, immediate=True)


def test_a_copy_in_the_background_is_followed_to_its_end(monkeypatch):
    monkeypatch.setattr("serverfree.initiator.xcopy.POLL_INTERVAL", 0)
    device = Background("01")
    seen = []
    moved = run_plan(
        CopyManager(device), Plan((Step(COPY, 0),)), lambda *so_far: seen.append(so_far)
    )
    assert moved == 1 << 20
    assert seen[:3] == [(1 << 20, 0)] * 3
    assert [cdb[:2].hex() for cdb in device.log if cdb[0] in (0x83, 0x84)] == (
        ["8301", "8405", "8405", "8405"]
    )
    # Table 126: 48 bytes, 0020h behind the flags, IMMED in byte 15, the identifier at 20.
    assert device.list == (
        bytes.fromhex("01 01 0020") + bytes(11) + b"\x01\xff" + bytes(3)
        + b"\x00\x01\x00\x02" + bytes(24)
    )  # fmt: skip


def test_a_copy_that_fails_in_the_background_raises_what_the_status_says(monkeypatch):
    monkeypatch.setattr("serverfree.initiator.xcopy.POLL_INTERVAL", 0)
    with pytest.raises(CopyFailed, match="COPY_ABORTED 0D/01"):
        run_plan(CopyManager(Background("02")), Plan((Step(COPY, 0),)))


def test_an_interrupt_ends_a_copy_in_the_background(monkeypatch):
    def interrupt(*so_far):
        raise KeyboardInterrupt

    device = Background("60")
    with pytest.raises(KeyboardInterrupt) as caught:
        run_plan(CopyManager(device), Plan((Step(COPY, 0),)), interrupt)
    assert device.log[-1][:6] == b"\x83\x1c\x00\x01\x00\x02"
    assert caught.value.__notes__ == ["the copy manager has ended the copy"]


def test_a_copy_is_aborted_by_its_identifier():
    device = Background("60")
    CopyManager(device).abort_operation(0x10002)
    assert device.log[-1][:6] == b"\x83\x1c\x00\x01\x00\x02"
