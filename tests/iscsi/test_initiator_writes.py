"""The initiator core and data that goes out: immediate, unsolicited, asked for (11.3, 11.8)."""

import struct

import pytest

from serverfree.iscsi.codes import NO_TAG
from serverfree.iscsi.initiator import MAX_OUTPUT_BUFFERS
from serverfree.scsi.status import Status
from support.target_pdus import LUN, WRITE_CDB, connect, feed, r2t, response, sent


def test_a_small_write_carries_all_its_data():
    connection = connect()
    task = connection.command(LUN, WRITE_CDB, [b"abc", b"", b"defg"])
    ((header, data),) = sent(connection)
    assert header[1] == 0xA1  # final, write, simple
    assert struct.unpack_from(">I", header, 20) == (7,)
    assert data == b"abcdefg"
    feed(connection, response(task.initiator_task_tag))
    assert task.result.status is Status.GOOD


def test_immediate_then_unsolicited_then_solicited_data():
    connection = connect(
        initial_r2t=False,
        first_burst_length=10_000,
        max_send_data_segment_length=4096,
        max_burst_length=8192,
        max_outstanding_r2t=2,
    )
    content = bytes(i * 13 % 251 for i in range(20_001))
    task = connection.command(LUN, WRITE_CDB, [content[:5000], content[5000:5001], content[5001:]])
    tag = task.initiator_task_tag
    pdus = sent(connection)
    assert pdus[0][0][1] == 0x21  # not final: unsolicited data follows
    assert struct.unpack_from(">I", pdus[0][0], 20) == (20_001,)
    # opcode, F, tag, TTT, DataSN, offset, length
    told = [
        (h[0], h[1], *struct.unpack_from(">II", h, 16), *struct.unpack_from(">II", h, 36), len(d))
        for h, d in pdus[1:]
    ]
    assert told == [
        (0x05, 0x00, tag, NO_TAG, 0, 4096, 4096),
        (0x05, 0x80, tag, NO_TAG, 1, 8192, 1808),
    ]
    wire = r2t(tag, 0x11, 10_000, 8192) + r2t(tag, 0x12, 18_192, 1809, number=1)
    assert feed(connection, wire) == []
    solicited = sent(connection)
    told = [
        (h[1], struct.unpack_from(">I", h, 20)[0], *struct.unpack_from(">II", h, 36), len(d))
        for h, d in solicited
    ]
    assert told == [
        (0x00, 0x11, 0, 10_000, 4096),
        (0x80, 0x11, 1, 14_096, 4096),
        (0x80, 0x12, 0, 18_192, 1809),
    ]
    assert b"".join(data for _, data in pdus + solicited) == content
    assert feed(connection, response(tag)) == [task]


@pytest.mark.parametrize(
    ("initial_r2t", "immediate", "first_flags", "first_data", "following"),
    [
        (True, False, 0xA1, 0, 0),
        (True, True, 0xA1, 1024, 0),
        (False, False, 0x21, 0, 2),
        (False, True, 0x21, 1024, 1),
    ],
)
def test_what_goes_without_being_asked_is_what_was_agreed(
    initial_r2t, immediate, first_flags, first_data, following
):
    connection = connect(
        initial_r2t=initial_r2t,
        immediate_data=immediate,
        first_burst_length=2048,
        max_send_data_segment_length=1024,
    )
    connection.command(LUN, WRITE_CDB, bytes(8192))
    first, *rest = sent(connection)
    assert (first[0][1], len(first[1]), len(rest)) == (first_flags, first_data, following)


def test_a_write_that_fits_is_final_though_more_could_go_unsolicited():
    connection = connect(initial_r2t=False, first_burst_length=4096)
    connection.command(LUN, WRITE_CDB, bytes(512))
    ((header, data),) = sent(connection)
    assert (header[1], len(data)) == (0xA1, 512)


def test_one_r2t_after_the_other_is_no_crowd():
    connection = connect(max_outstanding_r2t=1, immediate_data=False)
    task = connection.command(LUN, WRITE_CDB, bytes(4096))
    sent(connection)
    for number in range(4):
        wire = r2t(task.initiator_task_tag, number, number * 1024, 1024, number=number)
        feed(connection, wire)
        ((_, data),) = sent(connection)
        assert len(data) == 1024


def test_output_is_bounded_and_nothing_is_copied():
    connection = connect(
        max_burst_length=(1 << 24) - 1, max_send_data_segment_length=8192, first_burst_length=512
    )
    content = bytearray(15 << 20)
    task = connection.command(LUN, WRITE_CDB, content)
    connection.take_output()
    feed(connection, r2t(task.initiator_task_tag, 1, 0, 15 << 20))
    rounds = 0
    while output := connection.take_output():
        rounds += 1
        assert len(output) <= MAX_OUTPUT_BUFFERS
        assert sum(map(len, output)) <= 5 << 20
        assert all(part.obj is content for part in output if len(part) > 48)
    assert rounds > 3


def test_a_command_that_ends_early_sends_no_more_data():
    connection = connect(max_send_data_segment_length=512)
    task = connection.command(LUN, WRITE_CDB, bytes(65536))
    sent(connection)
    wire = r2t(task.initiator_task_tag, 1, 512, 4096)
    wire += response(task.initiator_task_tag, status=2, sense=bytes(18))
    feed(connection, wire)
    assert task.done
    assert sent(connection) == []


def test_a_long_cdb_goes_on_in_an_additional_header():
    connection = connect()
    cdb = bytes(range(0x7F, 0x7F + 32))
    connection.command(LUN, cdb)
    stream = b"".join(bytes(part) for part in connection.take_output())
    assert stream[4] == 5  # words of AHS
    assert stream[32:48] == cdb[:16]
    assert stream[48:52] == bytes((0, 17, 1, 0))  # 11.2.2.3: length 17, type 1
    assert stream[52:68] == cdb[16:]
