"""The relay's counter is a judge in other tests: it is judged here against bytes made by hand."""

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from support.relay import CommandCounter


def pdu(opcode: int, operation_code: int = 0, additional: int = 0, data: bytes = b"") -> bytes:
    """Build a PDU by RFC 7143 11.2: byte 32 of a SCSI Command is the operation code."""
    bhs = bytearray(48)
    bhs[0] = opcode
    struct.pack_into(">I", bhs, 4, additional << 24 | len(data))
    bhs[32] = operation_code
    return bytes(bhs) + bytes(additional * 4) + data + bytes(-len(data) % 4)


STREAM = b"".join(
    (
        pdu(0x43, data=b"InitiatorName=iqn.x:y\0"),
        pdu(0x01, 0x28),
        pdu(0x41, 0x83, data=bytes([0x01]) * 77),  # immediate bit; the data looks like commands
        pdu(0x05, 0x83, data=bytes(4096)),  # Data-Out: byte 32 is no operation code
        pdu(0x01, 0x83, additional=2, data=b"x"),
        pdu(0x01, 0x28),
    )
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_commands_are_counted_however_the_stream_is_cut(cuts):
    counter = CommandCounter()
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        counter.feed(STREAM[start:end])
    assert counter.commands == {0x28: 2, 0x83: 2}
