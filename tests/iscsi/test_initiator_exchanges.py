"""The initiator core and whatever is no command: pings, text, logout, task management, rejects."""

import struct

import pytest

from serverfree.iscsi.codes import NO_TAG, TaskFunction, TaskResponse
from serverfree.iscsi.errors import ProtocolError, RejectPdu, SessionLost
from serverfree.scsi.status import Status
from support.target_pdus import (
    LUN,
    READ_CDB,
    answer,
    connect,
    feed,
    nop_in,
    numbers,
    response,
    sent,
    text_response,
)


def test_a_ping_from_the_target_is_echoed():
    connection = connect(max_send_data_segment_length=512)
    feed(connection, nop_in(ttt=0x77, data=b"p" * 600))
    ((header, data),) = sent(connection)
    assert header[0] == 0x40  # NOP-Out, immediate
    assert struct.unpack_from(">QII", header, 8) == (LUN, NO_TAG, 0x77)
    assert data == b"p" * 512


def test_a_nop_in_that_asks_nothing_gets_nothing():
    connection = connect()
    feed(connection, nop_in())
    assert sent(connection) == []


def test_pings_that_are_not_fetched_end_the_connection():
    connection = connect()
    pings = b"".join(nop_in(ttt=number, data=b"x" * 100) for number in range(1000))
    with pytest.raises(ProtocolError):
        feed(connection, pings)


def test_a_long_text_answer_is_fetched_part_by_part():
    connection = connect()
    exchange = connection.text([("SendTargets", "All")])
    ((header, data),) = sent(connection)
    assert (header[0], header[1], data) == (0x44, 0x80, b"SendTargets=All\0")
    tag = exchange.initiator_task_tag
    feed(connection, text_response(tag, b"TargetName=iqn.2001-04.com.ex", flags=0x40, ttt=9))
    ((header, data),) = sent(connection)
    assert struct.unpack_from(">II", header, 16) == (tag, 9)
    assert data == b""
    assert feed(connection, text_response(tag, b"ample:a\0", stat_sn=101)) == [exchange]
    assert exchange.pairs == [("TargetName", "iqn.2001-04.com.example:a")]


def test_logout_is_answered():
    connection = connect()
    logout = connection.logout()
    ((header, _),) = sent(connection)
    assert header[:2] == b"\x46\x80"
    assert feed(connection, answer(0x26, 0, logout.initiator_task_tag)) == [logout]


def test_an_aborted_task_ends_when_the_target_says_so():
    connection = connect(cmd_sn=4)
    task = connection.command(LUN, READ_CDB, data_in=memoryview(bytearray(512)))
    abort = connection.task_management(TaskFunction.ABORT_TASK, task=task)
    _, (header, _) = sent(connection)
    assert header[:2] == b"\x42\x81"
    # LUN, tag, referenced tag, CmdSN, ExpStatSN, RefCmdSN
    assert struct.unpack_from(">QIIIII", header, 8) == (
        LUN,
        abort.initiator_task_tag,
        task.initiator_task_tag,
        5,
        100,
        4,
    )
    assert feed(connection, answer(0x22, 0, abort.initiator_task_tag)) == [task, abort]
    assert task.result.status is Status.TASK_ABORTED
    assert abort.response is TaskResponse.FUNCTION_COMPLETE


def test_an_abort_that_is_refused_leaves_the_task():
    connection = connect()
    task = connection.command(LUN, bytes(6))
    abort = connection.task_management(TaskFunction.ABORT_TASK, task=task)
    feed(connection, answer(0x22, 5, abort.initiator_task_tag))
    assert abort.response is TaskResponse.FUNCTION_NOT_SUPPORTED
    assert not task.done


def test_a_task_still_in_line_is_aborted_without_asking():
    connection = connect(window=0)
    task = connection.command(LUN, bytes(6))
    abort = connection.task_management(TaskFunction.ABORT_TASK, task=task)
    assert (task.done, abort.done) == (True, True)
    assert sent(connection) == []


def test_a_unit_reset_ends_the_tasks_of_that_unit_only():
    connection = connect()
    here, there = connection.command(LUN, bytes(6)), connection.command(0, bytes(6))
    reset = connection.task_management(TaskFunction.LOGICAL_UNIT_RESET, LUN)
    feed(connection, answer(0x22, 0, reset.initiator_task_tag))
    assert (here.done, there.done) == (True, False)


def reject(reason, header):
    return (
        bytes((0x3F, 0x80, reason, 0))
        + struct.pack(">I8xI4x", len(header), NO_TAG)
        + numbers(100)
        + bytes(12)
        + header
    )


def test_a_rejected_request_fails_alone():
    connection = connect()
    task, other = connection.command(LUN, bytes(6)), connection.command(LUN, bytes(6))
    (header, _), _ = sent(connection)
    assert feed(connection, reject(0x09, header)) == [task]
    assert isinstance(task.failure, RejectPdu)
    assert not other.done


def test_a_reject_of_something_unknown_ends_the_connection():
    with pytest.raises(ProtocolError):
        feed(connect(), reject(0x04, bytes(48)))


def async_message(event):
    head = bytes((0x32, 0x80, 0, 0)) + bytes(12) + struct.pack(">II", NO_TAG, 0)
    return head + numbers(100) + bytes((event, 0)) + bytes(10)


def test_async_messages():
    connection = connect()
    feed(connection, async_message(0))
    assert not connection.logout_requested
    feed(connection, async_message(1))
    assert connection.logout_requested
    with pytest.raises(SessionLost):
        feed(connection, async_message(3))


def test_a_lost_connection_fails_everything_once():
    connection = connect(window=1)
    requests = [connection.command(LUN, bytes(6)) for _ in range(3)] + [connection.ping()]
    lost = SessionLost("gone")
    assert len(connection.fail_all(lost)) == 4
    assert all(request.done and request.failure is lost for request in requests)
    assert connection.take_output() == []


def test_a_target_failure_is_a_failure_of_the_command():
    connection = connect()
    task = connection.command(LUN, bytes(6))
    feed(connection, response(task.initiator_task_tag, service=1))
    assert task.done
    assert isinstance(task.failure, ProtocolError)


def test_data_goes_one_way():
    with pytest.raises(ValueError):
        connect().command(LUN, bytes(16), b"out", memoryview(bytearray(4)))
