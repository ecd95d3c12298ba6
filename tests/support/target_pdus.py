"""PDUs of a target, by hand from the figures of RFC 7143 chapter 11, and who takes them."""

import struct

from serverfree.iscsi.codes import NO_TAG
from serverfree.iscsi.framing import Receiver
from serverfree.iscsi.initiator import InitiatorConnection
from serverfree.iscsi.login import InitiatorLogin
from serverfree.iscsi.negotiation import Parameters

LUN = 0x0001_0000_0000_0000
READ_CDB = bytes.fromhex("28000000000000000800")
WRITE_CDB = bytes.fromhex("2a000000000000000800")


def connect(*, cmd_sn=1, window=32, exp_stat_sn=100, **parameters):
    """Return a connection as a login with these parameters leaves it."""
    login = InitiatorLogin(
        "iqn.2026-11.com.example:me", None, isid=bytes.fromhex("800000010000"), cmd_sn=cmd_sn
    )
    login.parameters = Parameters(**parameters)
    login.exp_stat_sn = exp_stat_sn
    login.exp_cmd_sn = cmd_sn
    login.max_cmd_sn = (cmd_sn + window - 1) & 0xFFFFFFFF
    return InitiatorConnection(Receiver(8192, 64 << 10), login)


def feed(connection, data, sizes=(1 << 20,)):
    """Receive bytes in portions of these sizes, again and again; return what ended."""
    ended, at, turn = [], 0, 0
    while at < len(data):
        portion = data[at : at + sizes[turn % len(sizes)]]
        taken = 0
        for buffer in connection._receiver.buffers():
            part = portion[taken : taken + len(buffer)]
            buffer[: len(part)] = part
            taken += len(part)
        connection._receiver.received(taken)
        at, turn = at + taken, turn + 1
        ended += connection.process()
    return ended


def sent(connection):
    """Return all output as a list of (48-byte header, data) pairs, cut as a target would."""
    stream = b""
    while buffers := connection.take_output():
        stream += b"".join(bytes(buffer) for buffer in buffers)
    pdus = []
    while stream:
        ahs = stream[4] * 4
        length = int.from_bytes(stream[5:8], "big")
        end = 48 + ahs + length
        pdus.append((stream[:48], stream[48 + ahs : end]))
        assert stream[end : end + (-length & 3)] == bytes(-length & 3)
        stream = stream[end + (-length & 3) :]
    return pdus


def numbers(stat_sn, exp=2, top=40):
    return struct.pack(">III", stat_sn, exp, top)


def pad(data):
    return data + bytes(-len(data) & 3)


def data_in(
    tag, data, *, offset=0, data_sn=0, flags=0x81, status=0, stat_sn=100, residual=0, **more
):
    """11.7: bytes 0-47, then the segment."""
    return (
        bytes((0x25, flags, 0, status))
        + struct.pack(">I", len(data))
        + bytes(8)
        + struct.pack(">II", tag, NO_TAG)
        + numbers(stat_sn, **more)
        + struct.pack(">III", data_sn, offset, residual)
        + pad(data)
    )


def response(tag, *, status=0, service=0, flags=0x80, stat_sn=100, residual=0, sense=b"", **more):
    """11.4."""
    segment = struct.pack(">H", len(sense)) + sense if sense else b""
    return (
        bytes((0x21, flags, service, status))
        + struct.pack(">I8xII", len(segment), tag, 0)
        + numbers(stat_sn, **more)
        + struct.pack(">III", 0, 0, residual)
        + pad(segment)
    )


def r2t(tag, ttt, offset, length, *, number=0, stat_sn=100):
    """11.8."""
    return (
        bytes((0x31, 0x80, 0, 0, 0, 0, 0, 0))
        + struct.pack(">QII", LUN, tag, ttt)
        + numbers(stat_sn)
        + struct.pack(">III", number, offset, length)
    )


def nop_in(tag=NO_TAG, ttt=NO_TAG, data=b"", stat_sn=100):
    """11.19."""
    return (
        bytes((0x20, 0x80, 0, 0))
        + struct.pack(">IQII", len(data), LUN, tag, ttt)
        + numbers(stat_sn)
        + bytes(12)
        + pad(data)
    )


def answer(opcode, code, tag, stat_sn=100):
    """11.6 and 11.15: a response code in byte 2."""
    head = bytes((opcode, 0x80, code, 0)) + bytes(12) + struct.pack(">II", tag, 0)
    return head + numbers(stat_sn) + bytes(12)


def text_response(tag, data, *, flags=0x80, ttt=NO_TAG, stat_sn=100):
    return (
        bytes((0x24, flags, 0, 0))
        + struct.pack(">I8xII", len(data), tag, ttt)
        + numbers(stat_sn)
        + bytes(12)
        + pad(data)
    )
