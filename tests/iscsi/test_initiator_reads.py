"""The initiator core and data that comes in: Data-In and SCSI Response (RFC 7143 11.4, 11.7)."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.scsi.status import Status
from support.target_pdus import LUN, READ_CDB, connect, data_in, feed, nop_in, response, sent


def test_a_read_command_is_figure_11_3():
    connection = connect(cmd_sn=7)
    buffer = memoryview(bytearray(4096))
    task = connection.command(LUN, READ_CDB, data_in=buffer)
    ((header, data),) = sent(connection)
    assert data == b""
    assert header == (
        bytes((0x01, 0xC1, 0, 0, 0, 0, 0, 0))  # final, read, simple
        + struct.pack(">QIIII", LUN, task.initiator_task_tag, 4096, 7, 100)
        + READ_CDB.ljust(16, b"\0")
    )


def test_data_in_with_status_ends_a_read():
    connection = connect()
    buffer = bytearray(512)
    task = connection.command(LUN, READ_CDB, data_in=memoryview(buffer))
    ended = feed(connection, data_in(task.initiator_task_tag, b"\xa5" * 512))
    assert ended == [task]
    assert task.result.status is Status.GOOD
    assert task.result.transferred == 512
    assert buffer == b"\xa5" * 512
    assert not connection.tasks


def test_an_underflow_says_how_much_came():
    connection = connect()
    buffer = bytearray(512)
    task = connection.command(LUN, READ_CDB, data_in=memoryview(buffer))
    feed(connection, data_in(task.initiator_task_tag, b"x" * 36, flags=0x83, residual=476))
    assert task.result.transferred == 36


def test_data_and_sense_come_together():
    """A short tape block: Data-In, then CHECK CONDITION with ILI."""
    connection = connect()
    buffer = bytearray(512)
    task = connection.command(LUN, b"\x08\0\0\x02\0\0", data_in=memoryview(buffer))
    tag = task.initiator_task_tag
    sense = bytes.fromhex("f00020000001900a00000000000000000000")
    wire = data_in(tag, b"t" * 112, flags=0x80, stat_sn=0)
    wire += response(tag, status=2, flags=0x82, residual=400, sense=sense)
    assert feed(connection, wire) == [task]
    assert task.result.status is Status.CHECK_CONDITION
    assert (task.result.sense.ili, task.result.sense.information) == (True, 400)
    assert task.result.transferred == 112
    assert buffer[:112] == b"t" * 112


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
    st.lists(st.integers(1, 70_000), min_size=1, max_size=6),
)
def test_large_segments_arrive_whole_however_the_network_cuts_them(segments, portions):
    connection = connect(max_recv_data_segment_length=1 << 17)
    content = bytes(i * 7 % 251 for i in range(sum(segments)))
    buffer = bytearray(len(content))
    task = connection.command(LUN, READ_CDB, data_in=memoryview(buffer))
    wire, at = b"", 0
    for number, size in enumerate(segments):
        last = number == len(segments) - 1
        wire += data_in(
            task.initiator_task_tag,
            content[at : at + size],
            offset=at,
            data_sn=number,
            flags=0x81 if last else 0,
        )
        at += size
    other = connection.ping(b"still here")
    wire += nop_in(other.initiator_task_tag, data=b"still here", stat_sn=101)
    assert feed(connection, wire, portions) == [task, other]
    assert buffer == content
    assert other.echo == b"still here"
