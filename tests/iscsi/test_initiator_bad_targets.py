"""The initiator core and targets that misbehave: the connection is lost, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.iscsi.errors import ProtocolError
from support.target_pdus import (
    LUN,
    READ_CDB,
    WRITE_CDB,
    answer,
    connect,
    data_in,
    feed,
    nop_in,
    r2t,
    response,
    sent,
    text_response,
)


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
