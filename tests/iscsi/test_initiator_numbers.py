"""The initiator core and its sequence numbers: CmdSN and its window, StatSN (RFC 7143 4.2.2)."""

import struct

from support.target_pdus import LUN, connect, feed, response, sent


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
