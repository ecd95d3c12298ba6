"""The initiator core against PDUs built by hand from the figures of RFC 7143 chapter 11."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.iscsi.codes import NO_TAG, TaskFunction, TaskResponse
from serverfree.iscsi.errors import ProtocolError, RejectPdu, SessionLost
from serverfree.iscsi.framing import Receiver
from serverfree.iscsi.initiator import MAX_OUTPUT_BUFFERS, InitiatorConnection
from serverfree.iscsi.login import InitiatorLogin
from serverfree.iscsi.negotiation import Parameters
from serverfree.scsi.status import Status

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


# ---------------------------------------------------------------------- reads


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


# ---------------------------------------------------------------------- writes


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


# ---------------------------------------------------------------------- numbers


def test_commands_wait_for_the_window_and_go_in_order():
    connection = connect(cmd_sn=5, window=2)
    tasks = [connection.command(LUN, bytes((0, 0, 0, 0, 0, number))) for number in range(4)]
    first = sent(connection)
    assert [struct.unpack_from(">I", h, 24)[0] for h, _ in first] == [5, 6]
    feed(connection, response(tasks[0].initiator_task_tag, exp=7, top=7))
    later = sent(connection)
    assert [(struct.unpack_from(">I", h, 24)[0], h[37]) for h, _ in later] == [(7, 2)]
    feed(connection, response(tasks[1].initiator_task_tag, stat_sn=101, exp=8, top=9))
    assert [struct.unpack_from(">II", h, 24) for h, _ in sent(connection)] == [(8, 102)]


def test_cmd_sn_and_its_window_wrap():
    connection = connect(cmd_sn=0xFFFFFFFE, window=4)
    for _ in range(5):
        connection.command(LUN, bytes(6))
    assert [struct.unpack_from(">I", h, 24)[0] for h, _ in sent(connection)] == [
        0xFFFFFFFE,
        0xFFFFFFFF,
        0,
        1,
    ]


def test_a_window_that_would_move_back_is_ignored():
    connection = connect(cmd_sn=10, window=8)
    task = connection.command(LUN, bytes(6))
    sent(connection)
    feed(connection, response(task.initiator_task_tag, exp=5, top=6))
    connection.command(LUN, bytes(6))
    assert len(sent(connection)) == 1


def test_numbers_that_contradict_each_other_are_ignored():
    """4.2.2.1: MaxCmdSN more than one behind ExpCmdSN."""
    connection = connect(cmd_sn=1, window=1)
    first, _ = connection.command(LUN, bytes(6)), connection.command(LUN, bytes(6))
    sent(connection)
    feed(connection, response(first.initiator_task_tag, exp=100, top=60))
    assert sent(connection) == []


def test_immediate_requests_do_not_need_the_window():
    connection = connect(cmd_sn=3, window=0)
    connection.command(LUN, bytes(6))
    connection.ping(b"hi")
    connection.logout()
    pdus = sent(connection)
    assert [h[0] for h, _ in pdus] == [0x40, 0x46]
    assert [struct.unpack_from(">I", h, 24)[0] for h, _ in pdus] == [3, 3]  # CmdSN stays


def test_stat_sn_is_acknowledged_across_its_wrap():
    connection = connect(exp_stat_sn=0xFFFFFFFF)
    task = connection.command(LUN, bytes(6))
    sent(connection)
    feed(connection, response(task.initiator_task_tag, stat_sn=0xFFFFFFFF))
    connection.command(LUN, bytes(6))
    ((header, _),) = sent(connection)
    assert struct.unpack_from(">I", header, 28) == (0,)


def test_stat_sn_ahead_is_ahead_on_the_circle():
    connection = connect(exp_stat_sn=0xFFFFFFF0)
    tasks = [connection.command(LUN, bytes(6)) for _ in range(2)]
    feed(connection, response(tasks[0].initiator_task_tag, stat_sn=5))
    feed(connection, response(tasks[1].initiator_task_tag, stat_sn=0xFFFFFFF8))
    sent(connection)
    connection.command(LUN, bytes(6))
    ((header, _),) = sent(connection)
    assert struct.unpack_from(">I", header, 28) == (6,)


# ---------------------------------------------------------------------- the rest of the protocol


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


def text_response(tag, data, *, flags=0x80, ttt=NO_TAG, stat_sn=100):
    return (
        bytes((0x24, flags, 0, 0))
        + struct.pack(">I8xII", len(data), tag, ttt)
        + numbers(stat_sn)
        + bytes(12)
        + pad(data)
    )


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


# ---------------------------------------------------------------------- targets that misbehave


@pytest.mark.parametrize(
    "wrong",
    [
        lambda read, write: data_in(99, b"x"),
        lambda read, write: data_in(write, b"x" * 4),
        lambda read, write: data_in(read, b"x" * 513),
        lambda read, write: data_in(read, b"x" * 12, offset=508, flags=0x80),
        lambda read, write: data_in(read, b"x" * 12, offset=8, flags=0x80),
        lambda read, write: data_in(read, b"x" * 12, flags=0) + data_in(read, b"y" * 12, offset=8),
        lambda read, write: data_in(read, b"x" * 500),  # GOOD, but twelve bytes never came
        lambda read, write: data_in(read, b"x" * 512, status=0x77),
        lambda read, write: response(99),
        lambda read, write: r2t(read, 1, 0, 512),
        lambda read, write: r2t(99, 1, 0, 512),
        lambda read, write: r2t(write, 1, 0, 0),
        lambda read, write: r2t(write, 1, 4096, 4097),
        lambda read, write: r2t(write, 1, 0, 4097),  # MaxBurstLength is 4096
        lambda read, write: r2t(write, 1, 0, 512) + r2t(write, 2, 512, 512),
        lambda read, write: nop_in(tag=read),
        lambda read, write: text_response(read, b""),
        lambda read, write: answer(0x22, 0, read),
        lambda read, write: answer(0x26, 0, read),
        lambda read, write: bytes((0x23,)) + bytes(47),  # login response
        lambda read, write: bytes((0x01,)) + bytes(47),  # a command to an initiator
        lambda read, write: bytes((0x2F,)) + bytes(47),
        lambda read, write: data_in(read, b"x" * 8196),  # longer than we declared
    ],
)
def test_bad_targets_lose_the_connection(wrong):
    connection = connect(max_burst_length=4096, initial_r2t=True)
    read = connection.command(LUN, READ_CDB, data_in=memoryview(bytearray(512)))
    write = connection.command(LUN, WRITE_CDB, bytes(8192))
    sent(connection)
    with pytest.raises(ProtocolError):
        feed(connection, wrong(read.initiator_task_tag, write.initiator_task_tag))


def test_a_placed_segment_outside_its_command_is_refused_before_it_is_stored():
    connection = connect(max_recv_data_segment_length=1 << 17)
    buffer = bytearray(20_000)
    task = connection.command(LUN, READ_CDB, data_in=memoryview(buffer)[:16_384])
    wire = data_in(task.initiator_task_tag, b"\xff" * 20_000)
    with pytest.raises(ProtocolError):
        feed(connection, wire, (1000,))
    assert buffer == bytes(20_000)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=48, max_size=200), st.sampled_from((0x20, 0x21, 0x24, 0x25, 0x31, 0x32)))
def test_noise_is_understood_or_a_protocol_error(noise, opcode):
    connection = connect()
    connection.command(LUN, READ_CDB, data_in=memoryview(bytearray(64)))
    connection.command(LUN, WRITE_CDB, bytes(64))
    try:
        feed(connection, bytes((opcode,)) + noise[1:])
    except ProtocolError:
        assert connection is not None
