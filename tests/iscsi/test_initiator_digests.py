"""Digests at the initiator (RFC 7143 11.2.3, 13.1): what goes out, what is believed, what ends it.

The oracle is a CRC32C computed bit by bit here, and the vectors of RFC 7143 appendix A.4 for it.
"""

import struct

import pytest

from serverfree.iscsi.codes import NO_TAG
from serverfree.iscsi.errors import DataDigestError, ProtocolError
from serverfree.iscsi.framing import Receiver, Sender
from serverfree.iscsi.initiator import InitiatorConnection
from serverfree.iscsi.login import InitiatorLogin
from serverfree.iscsi.negotiation import Parameters
from serverfree.scsi.status import Status

LUN = 0x0001_0000_0000_0000
READ = bytes.fromhex("28000000000000000800")
WRITE = bytes.fromhex("2a000000000000000800")
BOTH = [(False, False), (True, False), (False, True), (True, True)]


def crc32c(data: bytes) -> bytes:
    """The polynomial 11EDC6F41h, reflected, bit by bit; in the order of the wire."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def test_the_oracle_knows_the_vectors_of_the_rfc():
    assert crc32c(bytes(32)).hex() == "aa36918a"
    assert crc32c(b"\xff" * 32).hex() == "43aba862"
    assert crc32c(bytes(range(32))).hex() == "4e79dd46"
    assert crc32c(bytes(range(31, -1, -1))).hex() == "5cdb3f11"


def connect(header, data, **more):
    login = InitiatorLogin("iqn.2026-11.com.example:me", None, isid=bytes.fromhex("800000010000"))
    names = {True: "CRC32C", False: "None"}
    login.parameters = Parameters(header_digest=names[header], data_digest=names[data], **more)
    login.exp_cmd_sn, login.max_cmd_sn = 1, 32
    return InitiatorConnection(Receiver(8192, 64 << 10), login)


def feed(connection, data, step=1 << 20):
    ended = []
    for at in range(0, len(data), step):
        piece, taken = data[at : at + step], 0
        for buffer in connection._receiver.buffers():
            part = piece[taken : taken + len(buffer)]
            buffer[: len(part)] = part
            taken += len(part)
        connection._receiver.received(taken)
        ended += connection.process()
    return ended


def data_in(tag, data, header, digest, *, offset=0, last=True):
    """11.7, with the digests as asked."""
    bhs = (
        bytes((0x25, 0x81 if last else 0, 0, 0))
        + struct.pack(">I8xII", len(data), tag, NO_TAG)
        + struct.pack(">III", 0, 2, 40)
        + struct.pack(">III", 0, offset, 0)
    )
    padded = data + bytes(-len(data) & 3)
    return bhs + (crc32c(bhs) if header else b"") + padded + (crc32c(padded) if digest else b"")


def sent(connection):
    stream = b""
    while buffers := connection.take_output():
        stream += b"".join(bytes(buffer) for buffer in buffers)
    return stream


@pytest.mark.parametrize(("header", "data"), BOTH)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 4095, 8192])
def test_a_write_goes_out_with_the_digests_agreed(header, data, length):
    connection = connect(header, data)
    payload = bytes(number * 7 & 0xFF for number in range(length))
    connection.command(LUN, WRITE, payload)
    stream = sent(connection)
    bhs, rest = stream[:48], stream[48:]
    assert int.from_bytes(bhs[5:8], "big") == length
    padded = payload + bytes(-length & 3)
    expected = crc32c(bhs) if header else b""
    if length:
        expected += padded + (crc32c(padded) if data else b"")
    assert rest == expected


def test_a_long_cdb_is_within_the_header_digest():
    connection = connect(True, True)
    connection.command(LUN, bytes(32))
    stream = sent(connection)
    head = 48 + stream[4] * 4
    assert stream[4] == 5
    assert stream[head:] == crc32c(stream[:head])


@pytest.mark.parametrize(("header", "data"), BOTH)
def test_solicited_data_has_digests_of_its_own(header, data):
    connection = connect(header, data, immediate_data=False, max_send_data_segment_length=1000)
    payload = bytes(number & 0xFF for number in range(2500))
    task = connection.command(LUN, WRITE, [payload[:700], payload[700:]])
    sent(connection)
    r2t = (
        bytes((0x31, 0x80)) + bytes(6) + struct.pack(">QII", LUN, task.initiator_task_tag, 5)
        + struct.pack(">IIIIII", 0, 2, 40, 0, 0, 2500)
    )  # fmt: skip
    feed(connection, r2t + (crc32c(r2t) if header else b""))
    stream, got = sent(connection), b""
    for length in (1000, 1000, 500):
        bhs, stream = stream[:48], stream[48:]
        if header:
            assert stream[:4] == crc32c(bhs)
            stream = stream[4:]
        assert int.from_bytes(bhs[5:8], "big") == length
        piece, stream = stream[:length], stream[length:]
        if data:
            assert stream[:4] == crc32c(piece)
            stream = stream[4:]
        got += piece
    assert (got, stream) == (payload, b"")


@pytest.mark.parametrize(("header", "data"), BOTH)
@pytest.mark.parametrize("step", [1, 50, 7000, 1 << 20])
@pytest.mark.parametrize("length", [1, 510, 8192 * 4 + 3])
def test_a_read_with_right_digests_arrives(header, data, step, length):
    connection = connect(header, data, max_recv_data_segment_length=1 << 20)
    memory = memoryview(bytearray(length))
    task = connection.command(LUN, READ, data_in=memory)
    sent(connection)
    payload = bytes(number * 3 & 0xFF for number in range(length))
    if step == 1 and length > 1000:
        step = 997
    assert feed(connection, data_in(task.initiator_task_tag, payload, header, data), step) == [task]
    assert task.result.status is Status.GOOD
    assert bytes(memory) == payload


@pytest.mark.parametrize("step", [50, 1 << 20])
@pytest.mark.parametrize("length", [100, 8192 * 4 + 2])
def test_damaged_data_ends_the_session_and_never_the_command_with_good(step, length):
    for where in (0, length // 2, length - 1, "padding" if length & 3 else 0, "digest"):
        connection = connect(True, True, max_recv_data_segment_length=1 << 20)
        task = connection.command(LUN, READ, data_in=memoryview(bytearray(length)))
        sent(connection)
        wire = bytearray(data_in(task.initiator_task_tag, bytes(length), True, True))
        at = {"digest": len(wire) - 2, "padding": len(wire) - 5}.get(where, 0)
        wire[at or 52 + where] ^= 0x40
        with pytest.raises(DataDigestError):
            feed(connection, bytes(wire), step)
        assert not task.done


def test_a_damaged_header_ends_the_session_whatever_it_says():
    for at in range(52):
        connection = connect(True, False)
        task = connection.command(LUN, READ, data_in=memoryview(bytearray(512)))
        sent(connection)
        wire = bytearray(data_in(task.initiator_task_tag, bytes(512), True, False))
        wire[at] ^= 0x04
        # A damaged length of additional headers may make it wait for more: then more comes.
        with pytest.raises(ProtocolError, match="digest"):
            feed(connection, bytes(wire) + bytes(2048))
        assert not task.done


def test_a_plain_sender_adds_padding_only():
    output: list[bytes] = []
    Sender(header=False, data=False).put(output, b"h" * 48, (b"abc", b"de"), 5)
    assert output == [b"h" * 48, b"abc", b"de", bytes(3)]
