"""Every PDU that we pack, read back by Wireshark's dissector: each field where RFC 7143 has it."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from serverfree.iscsi import pdu as p

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

# Of each PDU: what we set, and what Wireshark calls it. Values differ in every byte, so that a
# field in the wrong place, or of the wrong width, cannot pass.
CASES: list[tuple[p.Pdu, dict[str, str]]] = [
    (
        p.NopOut(0, 0x11223344, 0xFFFFFFFF, 0x01020304, 0x05060708, True),
        {
            "initiator_task_tag": "initiatortasktag",
            "target_transfer_tag": "targettransfertag",
            "cmd_sn": "cmdsn",
            "exp_stat_sn": "expstatsn",
            "immediate": "I",
        },
    ),
    (
        p.NopIn(0, 0x11223344, 0xFFFFFFFF, 0x01020304, 0x05060708, 0x090A0B0C),
        {
            "initiator_task_tag": "initiatortasktag",
            "target_transfer_tag": "targettransfertag",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
        },
    ),
    (
        p.ScsiCommand(
            0, 0x11223344, 0x00010200, 0x01020304, 0x05060708, bytes.fromhex("28") + bytes(15), 0xC1
        ),
        {
            "initiator_task_tag": "initiatortasktag",
            "expected_data_transfer_length": "scsicommand.expecteddatatransferlength",
            "cmd_sn": "cmdsn",
            "exp_stat_sn": "expstatsn",
        },
    ),
    (
        p.ScsiResponse(
            0x11223344, 0x82, 0, 2, 0x01020304, 0x05060708, 0x090A0B0C, 3, 0, 0x0D0E0F10
        ),
        {
            "initiator_task_tag": "initiatortasktag",
            "status": "scsiresponse.status",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
            "exp_data_sn": "expdatasn",
            "residual_count": "scsiresponse.residualcount",
        },
    ),
    (
        p.TaskManagementRequest(
            1, 0x11223344, 0, 0x55667788, 0x01020304, 0x05060708, 0x090A0B0C, 0
        ),
        {
            "function": "taskmanfun.function",
            "initiator_task_tag": "initiatortasktag",
            "referenced_task_tag": "taskmanfun.referencedtasktag",
            "cmd_sn": "cmdsn",
            "exp_stat_sn": "expstatsn",
            "ref_cmd_sn": "refcmdsn",
        },
    ),
    (
        p.TaskManagementResponse(0x11223344, 5, 0x01020304, 0x05060708, 0x090A0B0C),
        {
            "initiator_task_tag": "initiatortasktag",
            "response": "taskmanfun.response",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
        },
    ),
    (
        p.DataOut(0, 0x11223344, 0x55667788, 0x01020304, 0x05060708, 0x00010200, True, bytes(8)),
        {
            "initiator_task_tag": "initiatortasktag",
            "target_transfer_tag": "targettransfertag",
            "exp_stat_sn": "expstatsn",
            "data_sn": "datasn",
            "buffer_offset": "bufferOffset",
        },
    ),
    (
        p.DataIn(
            0x11223344,
            0x83,
            0,
            0,
            0x55667788,
            0x01020304,
            0x05060708,
            0x090A0B0C,
            7,
            0x00010200,
            0x00000300,
            bytes(8),
        ),
        {
            "initiator_task_tag": "initiatortasktag",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
            "data_sn": "datasn",
            "buffer_offset": "bufferOffset",
            "residual_count": "scsidata.readresidualcount",
        },
    ),
    (
        p.R2T(
            0, 0x11223344, 0x55667788, 0x01020304, 0x05060708, 0x090A0B0C, 9, 0x00010200, 0x00030400
        ),
        {
            "initiator_task_tag": "initiatortasktag",
            "target_transfer_tag": "targettransfertag",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
            "r2t_sn": "r2tsn",
            "buffer_offset": "bufferOffset",
            "desired_data_transfer_length": "desireddatalength",
        },
    ),
    (
        p.AsyncMessage(0, 0x01020304, 0x05060708, 0x090A0B0C, 1, 2, 0x0304, 0x0506, 0x0708),
        {
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
            "event": "asyncevent",
            "vendor_code": "eventvendorcode",
            "parameter1": "parameter1",
            "parameter2": "parameter2",
            "parameter3": "parameter3",
        },
    ),
    (
        p.TextRequest(
            0x11223344, 0x55667788, 0, 0x01020304, 0x05060708, True, False, True, b"a=b\0"
        ),
        {
            "initiator_task_tag": "initiatortasktag",
            "target_transfer_tag": "targettransfertag",
            "cmd_sn": "cmdsn",
            "exp_stat_sn": "expstatsn",
            "final": "text.F",
            "more": "text.C",
        },
    ),
    (
        p.TextResponse(
            0x11223344, 0x55667788, 0, 0x01020304, 0x05060708, 0x090A0B0C, False, True, b"a=b\0"
        ),
        {
            "initiator_task_tag": "initiatortasktag",
            "target_transfer_tag": "targettransfertag",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
            "final": "text.F",
            "more": "text.C",
        },
    ),
    (
        p.LoginRequest(
            b"\x80\x11\x22\x33\x44\x55",
            0x0607,
            0x11223344,
            0x0809,
            0x01020304,
            0x05060708,
            True,
            False,
            1,
            3,
            data=b"a=b\0",
        ),
        {
            "tsih": "tsih",
            "initiator_task_tag": "initiatortasktag",
            "cid": "cid",
            "cmd_sn": "cmdsn",
            "exp_stat_sn": "expstatsn",
            "transit": "login.T",
            "continued": "login.C",
            "current_stage": "login.csg",
            "next_stage": "login.nsg",
        },
    ),
    (
        p.LoginResponse(
            b"\x80\x11\x22\x33\x44\x55",
            0x0607,
            0x11223344,
            0x01020304,
            0x05060708,
            0x090A0B0C,
            True,
            False,
            1,
            3,
            0x0203,
        ),
        {
            "tsih": "tsih",
            "initiator_task_tag": "initiatortasktag",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
            "transit": "login.T",
            "current_stage": "login.csg",
            "next_stage": "login.nsg",
            "status": "login.status",
        },
    ),
    (
        p.LogoutRequest(0x11223344, 1, 0x0809, 0x01020304, 0x05060708),
        {
            "initiator_task_tag": "initiatortasktag",
            "reason": "logout.reason",
            "cid": "cid",
            "cmd_sn": "cmdsn",
            "exp_stat_sn": "expstatsn",
        },
    ),
    (
        p.LogoutResponse(0x11223344, 2, 0x01020304, 0x05060708, 0x090A0B0C, 0x0D0E, 0x0F10),
        {
            "initiator_task_tag": "initiatortasktag",
            "response": "logout.response",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
            "time2wait": "time2wait",
            "time2retain": "time2retain",
        },
    ),
    (
        p.SnackRequest(0, 0, 0x11223344, 0x55667788, 0x01020304, 0x05060708, 0x090A0B0C),
        {
            "kind": "snack.type",
            "initiator_task_tag": "initiatortasktag",
            "exp_stat_sn": "expstatsn",
            "begin_run": "snack.begrun",
            "run_length": "snack.runlength",
        },
    ),
    (
        p.Reject(4, 0x01020304, 0x05060708, 0x090A0B0C, 3, b"h" * 48),
        {
            "reason": "reject.reason",
            "stat_sn": "statsn",
            "exp_cmd_sn": "expcmdsn",
            "max_cmd_sn": "maxcmdsn",
        },
    ),
]


@pytest.fixture(scope="module")
def dissected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """All cases in one capture, as Wireshark reads it; fields by name."""
    from scapy.layers.inet import IP, TCP
    from scapy.utils import wrpcap

    packets = []
    for number, (pdu, _) in enumerate(CASES):
        payload = pdu.pack() + bytes(getattr(pdu, "data", b""))
        from_target = pdu.OPCODE >= 0x20
        ports = {"sport": 3260, "dport": 40000 + number}
        if not from_target:
            ports = {"sport": 40000 + number, "dport": 3260}
        packets.append(
            IP(src="127.0.0.1", dst="127.0.0.1") / TCP(flags="PA", seq=1, ack=1, **ports) / payload
        )
    capture = tmp_path_factory.mktemp("capture") / "pdus.pcap"
    wrpcap(str(capture), packets, linktype=228)  # raw IPv4
    return [_fields(packet) for packet in _tshark(capture)]


def _tshark(capture: Path) -> list[dict[str, object]]:
    result = subprocess.run(
        # The filter guesses whether bytes are iSCSI at all; these are, and no field is usual.
        ["tshark", "-o", "iscsi.bogus_pdu_filter:FALSE", "-r", capture, "-T", "json"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    packets: list[dict[str, object]] = json.loads(result.stdout)
    return packets


def _fields(tree: object) -> dict[str, str]:
    """Flatten the dissection to the fields of iSCSI, by their last name; the outermost counts."""
    found: dict[str, str] = {}
    if isinstance(tree, dict):
        for key, value in tree.items():
            if isinstance(value, str) and key.startswith("iscsi."):
                found.setdefault(key.removeprefix("iscsi."), value)
            else:
                found = _fields(value) | found
    elif isinstance(tree, list):
        for item in tree:
            found = _fields(item) | found
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[type(c[0]).__name__ for c in CASES])
def test_fields_are_where_the_standard_has_them(
    dissected: list[dict[str, str]], number: int
) -> None:
    pdu, names = CASES[number]
    fields = dissected[number]
    assert int(fields["opcode"], 0) == pdu.OPCODE
    for attribute, name in names.items():
        assert int(fields[name], 0) == getattr(pdu, attribute), attribute


@pytest.mark.parametrize("number", range(len(CASES)), ids=[type(c[0]).__name__ for c in CASES])
def test_unpack_reads_what_pack_wrote(number: int) -> None:
    pdu, _ = CASES[number]
    again = type(pdu).unpack(pdu.pack(), getattr(pdu, "data", b""))
    assert dataclasses.asdict(again) == dataclasses.asdict(pdu)
