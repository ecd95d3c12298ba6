"""The target's full feature phase: against the initiator's core, and rude hand-made PDUs."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.iscsi.codes import FINAL, NO_TAG, RejectReason, TaskResponse
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.negotiation import Offer
from serverfree.iscsi.pdu import (
    DataOut,
    LogoutRequest,
    NopIn,
    NopOut,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TaskManagementRequest,
    TextRequest,
    TextResponse,
)
from serverfree.iscsi.target import OFFER, QUEUE_DEPTH
from serverfree.iscsi.task import PENDING_DATA, Task
from serverfree.iscsi.testing import ConnectionPair, wire
from serverfree.scsi.status import Status

READ = bytes.fromhex("28000000000000000800") + bytes(6)
WRITE = bytes.fromhex("2a000000000000000800") + bytes(6)


def serve(pair: ConnectionPair, medium: bytearray) -> None:
    """Run both sides until neither has anything to say; LUN 0 reads and writes `medium`."""
    while True:
        for event in pair.to_target():
            assert isinstance(event, Task)
            fresh = event.initiator_task_tag not in pair.target.tasks
            if event.cdb[0] == 0x2A and fresh and not pair.target.solicit(event, len(medium)):
                continue
            if event.cdb[0] == 0x2A:
                medium[: len(event.data)] = event.data
                pair.target.reply(event, Status.GOOD)
            else:
                pair.target.reply(event, Status.GOOD, bytes(medium))
        if not pair.target.output and not pair.initiator.has_output:
            return
        pair.to_initiator()


offers = st.builds(
    Offer,
    max_recv_data_segment_length=st.sampled_from((512, 600, 8192, 65536, 1 << 20)),
    max_burst_length=st.sampled_from((4096, 65536, 1 << 20)),
    first_burst_length=st.sampled_from((512, 4096)),
    initial_r2t=st.booleans(),
    immediate_data=st.booleans(),
    max_outstanding_r2t=st.sampled_from((1, 3, 65535)),
    data_pdu_in_order=st.booleans(),
    data_sequence_in_order=st.booleans(),
    header_digest=st.sampled_from((("None",), ("CRC32C", "None"))),
    data_digest=st.sampled_from((("None",), ("CRC32C", "None"))),
)


@settings(max_examples=100, deadline=None)
@given(
    offers,
    offers,
    st.integers(1, 300_000),
    st.sampled_from((7, 48, 1460, 65536, 1 << 30)),
)
def test_data_survives_every_negotiation(
    initiator: Offer, target: Offer, length: int, step: int
) -> None:
    if length > 20_000:
        step = max(step, 1460)
    pair = ConnectionPair(initiator, target, step)
    sent = random.Random(length).randbytes(length)
    medium = bytearray(length)
    write = pair.initiator.command(0, WRITE, sent)
    serve(pair, medium)
    assert write.result is not None
    assert write.result.status is Status.GOOD
    assert medium == sent
    back = bytearray(length)
    read = pair.initiator.command(0, READ, data_in=memoryview(back))
    serve(pair, medium)
    assert read.result is not None
    assert read.result.transferred == length
    assert back == sent
    assert not pair.target.tasks


def command(
    tag: int,
    cmd_sn: int,
    *,
    cdb: bytes = READ,
    length: int = 0,
    flags: int = FINAL | 0x40,
    immediate: bool = False,
    data: bytes = b"",
) -> bytes:
    pdu = ScsiCommand(0, tag, length, cmd_sn, 0, cdb, flags, immediate, data=data)
    return wire(pdu.pack(), data)


@pytest.fixture
def pair() -> ConnectionPair:
    return ConnectionPair()


def only_output(pair: ConnectionPair, kind: type) -> object:
    header, *rest = pair.target.output
    pair.target.output = []
    pdu = kind.unpack(header, rest[0] if rest else b"")
    assert header[0] & 0x3F == kind.OPCODE
    return pdu


class TestResiduals:
    """RFC 7143 11.4.5: the count is against what the initiator expects."""

    @pytest.mark.parametrize(
        ("expected", "given", "flag", "residual", "sent"),
        [(512, 512, 0, 0, 512), (1024, 512, 2, 512, 512), (300, 512, 4, 212, 300)],
    )
    def test_read(
        self, pair: ConnectionPair, expected: int, given: int, flag: int, residual: int, sent: int
    ) -> None:
        (task,) = pair.to_target(command(1, 1, length=expected))
        pair.target.reply(task, Status.GOOD, bytes(given))
        header, data = pair.target.output[:2]
        assert header[0] == 0x25
        assert header[1] == 0x81 | flag
        assert int.from_bytes(header[44:48], "big") == residual
        assert len(data) == sent

    def test_write_that_needs_less_than_announced_takes_only_that(
        self, pair: ConnectionPair
    ) -> None:
        (task,) = pair.to_target(
            command(1, 1, cdb=WRITE, length=1024, flags=0xA0, data=b"x" * 1024)
        )
        assert pair.target.solicit(task, 512)
        assert bytes(task.data) == b"x" * 512
        pair.target.reply(task, Status.GOOD)
        response = only_output(pair, ScsiResponse)
        assert (response.flags, response.residual_count) == (0x82, 512)

    def test_write_that_needs_more_than_announced_is_overflow(self, pair: ConnectionPair) -> None:
        (task,) = pair.to_target(command(1, 1, cdb=WRITE, length=512, flags=0xA0, data=bytes(512)))
        assert pair.target.solicit(task, 2048)
        pair.target.reply(task, Status.GOOD)
        response = only_output(pair, ScsiResponse)
        assert (response.flags, response.residual_count) == (0x84, 1536)

    def test_data_with_check_condition_comes_before_its_sense(self, pair: ConnectionPair) -> None:
        (task,) = pair.to_target(command(1, 1, length=4096))
        pair.target.reply(task, Status.CHECK_CONDITION, bytes(100), b"\x70" + bytes(17))
        data_in, _, response, sense = pair.target.output
        assert (data_in[0], data_in[1]) == (0x25, 0x80)
        assert (response[0], response[1], response[3]) == (0x21, 0x82, 2)
        assert int.from_bytes(response[44:48], "big") == 4096 - 100
        assert int.from_bytes(response[36:40], "big") == 1  # ExpDataSN
        assert sense == b"\x00\x12\x70" + bytes(17)


class TestNumbers:
    """RFC 7143 4.2.2: CmdSN order and window."""

    def test_commands_are_held_until_the_missing_one_has_come(self, pair: ConnectionPair) -> None:
        assert list(pair.to_target(command(3, 3))) == []
        assert list(pair.to_target(command(2, 2))) == []
        tags = [task.initiator_task_tag for task in pair.to_target(command(1, 1))]
        assert tags == [1, 2, 3]

    @pytest.mark.parametrize("cmd_sn", [0, 0xFFFFFFFF, 1 + QUEUE_DEPTH, 0x80000000])
    def test_outside_the_window_is_ignored(self, pair: ConnectionPair, cmd_sn: int) -> None:
        assert list(pair.to_target(command(1, cmd_sn))) == []
        assert pair.target.output == []
        assert len(list(pair.to_target(command(2, 1)))) == 1

    def test_immediate_commands_do_not_advance_it(self, pair: ConnectionPair) -> None:
        assert len(list(pair.to_target(command(1, 1, immediate=True)))) == 1
        assert len(list(pair.to_target(command(2, 1)))) == 1

    def test_window_is_the_free_places_of_the_queue(self, pair: ConnectionPair) -> None:
        for number in range(1, 11):
            (task,) = pair.to_target(command(number, number))
            pair.target.keep(task)
        list(pair.to_target(wire(NopOut(0, 77, NO_TAG, 11, 0, immediate=True).pack())))
        nop = only_output(pair, NopIn)
        assert nop.exp_cmd_sn == 11
        assert nop.max_cmd_sn == 11 + QUEUE_DEPTH - 10 - 1

    def test_stat_sn_counts_every_status(self, pair: ConnectionPair) -> None:
        numbers = []
        for tag in (1, 2, 3):
            (task,) = pair.to_target(command(tag, tag))
            pair.target.reply(task, Status.GOOD)
            numbers.append(only_output(pair, ScsiResponse).stat_sn)
        assert [number - numbers[0] for number in numbers] == [0, 1, 2]


class TestRudeInitiators:
    def rejected(self, pair: ConnectionPair, raw: bytes) -> RejectReason:
        assert list(pair.to_target(raw)) == []
        reject = only_output(pair, Reject)
        assert bytes(reject.data) == raw[:48]
        return RejectReason(reject.reason)

    def test_tag_in_use(self, pair: ConnectionPair) -> None:
        (task,) = pair.to_target(command(1, 1))
        pair.target.keep(task)
        assert self.rejected(pair, command(1, 2)) == RejectReason.TASK_IN_PROGRESS

    def test_unknown_opcode_and_snack_and_login(self, pair: ConnectionPair) -> None:
        assert self.rejected(pair, b"\x1c" + bytes(47)) == RejectReason.COMMAND_NOT_SUPPORTED
        assert self.rejected(pair, b"\x10\x80" + bytes(46)) == RejectReason.SNACK_REJECT
        assert self.rejected(pair, b"\x43\x87" + bytes(46)) == RejectReason.PROTOCOL_ERROR

    def test_data_with_a_read(self, pair: ConnectionPair) -> None:
        raw = command(1, 1, length=512, data=bytes(512))
        assert self.rejected(pair, raw) == RejectReason.INVALID_PDU_FIELD

    def test_more_immediate_data_than_expected(self, pair: ConnectionPair) -> None:
        raw = command(1, 1, cdb=WRITE, length=512, flags=0xA0, data=bytes(1024))
        assert self.rejected(pair, raw) == RejectReason.PROTOCOL_ERROR

    def test_data_out_that_nobody_asked_for(self, pair: ConnectionPair) -> None:
        (task,) = pair.to_target(command(1, 1, cdb=WRITE, length=4096, flags=0xA0))
        assert not pair.target.solicit(task, 4096)
        pair.target.output = []
        raw = wire(DataOut(0, 1, 0x1234, 0, 0, 0, True, bytes(512)).pack(), bytes(512))
        assert self.rejected(pair, raw) == RejectReason.PROTOCOL_ERROR

    @pytest.mark.parametrize(
        ("data_sn", "offset", "length", "final"),
        [(1, 0, 512, False), (0, 512, 512, False), (0, 0, 8192, True), (0, 0, 512, True)],
    )
    def test_data_out_of_order_ends_the_task_after_its_final_pdu(
        self, pair: ConnectionPair, data_sn: int, offset: int, length: int, final: bool
    ) -> None:
        (task,) = pair.to_target(command(1, 1, cdb=WRITE, length=4096, flags=0xA0))
        pair.target.solicit(task, 4096)
        tag = int.from_bytes(pair.target.output[0][20:24], "big")
        pair.target.output = []
        pdu = DataOut(0, 1, tag, 0, data_sn, offset, final, bytes(length))
        assert list(pair.to_target(wire(pdu.pack(), bytes(length)))) == []
        if not final:
            assert pair.target.output == []
            last = DataOut(0, 1, tag, 0, data_sn + 1, offset + length, True, bytes(512))
            assert list(pair.to_target(wire(last.pack(), bytes(512)))) == []
        response = only_output(pair, ScsiResponse)
        assert response.status == Status.CHECK_CONDITION
        assert bytes(response.data[2:]).hex() == "70000b000000000a000000004705" + "00" * 4
        assert not pair.target.tasks

    def test_data_for_an_answered_task_is_dropped(self, pair: ConnectionPair) -> None:
        pdu = DataOut(0, 99, NO_TAG, 0, 0, 0, True, bytes(512))
        assert list(pair.to_target(wire(pdu.pack(), bytes(512)))) == []
        assert pair.target.output == []

    def test_segment_longer_than_declared_ends_the_connection(self, pair: ConnectionPair) -> None:
        header = bytearray(NopOut(0, 1).pack())
        header[5:8] = (OFFER.max_recv_data_segment_length + 1).to_bytes(3, "big")
        with pytest.raises(ProtocolError, match="declared"):
            list(pair.to_target(bytes(header)))

    def test_endless_text_request_is_refused(self, pair: ConnectionPair) -> None:
        for number in itertools.count(1):
            part = b"X-a=" + b"b" * 8000
            pdu = TextRequest(1, cmd_sn=number, final=False, more=True, data=part)
            list(pair.to_target(wire(pdu.pack(), part)))
            if any(buffer[0] == Reject.OPCODE for buffer in pair.target.output):
                break
        assert number * len(part) < 200_000

    @settings(max_examples=200, deadline=None)
    @given(st.binary(min_size=48, max_size=300), st.integers(0, 0x3F))
    def test_random_bytes_never_raise_anything_else(self, noise: bytes, opcode: int) -> None:
        pair = ConnectionPair()
        (task,) = pair.to_target(command(1, 1, cdb=WRITE, length=4096, flags=0xA0))
        pair.target.solicit(task, 4096)
        raw = bytes((noise[0] & 0x40 | opcode,)) + noise[1:4] + b"\0\0" + noise[6:]
        try:
            for event in pair.to_target(raw):
                if isinstance(event, Task):
                    pair.target.solicit(event, 4096)
        except ProtocolError:
            pass


class TestMemory:
    def test_r2ts_wait_for_room(self, pair: ConnectionPair) -> None:
        size = 16 << 20
        for number in range(1, 5):
            (task,) = pair.to_target(command(number, number, cdb=WRITE, length=size, flags=0xA0))
            assert not pair.target.solicit(task, size)
        asked = {bytes(header[16:20])[-1] for header in pair.target.output}
        assert asked == set(range(1, PENDING_DATA // size + 1))
        pair.target.output = []
        pair.target.drop(pair.target.tasks[1])
        assert {header[19] for header in pair.target.output} == {3}

    def test_one_large_write_is_never_refused_room(self, pair: ConnectionPair) -> None:
        size = PENDING_DATA * 2
        (task,) = pair.to_target(command(1, 1, cdb=WRITE, length=size, flags=0xA0))
        assert not pair.target.solicit(task, size)
        assert pair.target.output


class TestOtherRequests:
    def test_ping_is_echoed(self, pair: ConnectionPair) -> None:
        ping = pair.initiator.ping(b"are you there")
        assert list(pair.to_target()) == []
        assert pair.to_initiator() == [ping]
        assert ping.echo == b"are you there"

    def test_long_text_is_fetched_in_parts(self) -> None:
        pair = ConnectionPair(Offer(max_recv_data_segment_length=512))
        text = b"".join(b"TargetName=iqn.2026-11.com.example:%04d\0" % n for n in range(100))
        exchange = pair.initiator.text([("SendTargets", "All")])
        ended = []
        while not ended:
            for event in pair.to_target():
                assert isinstance(event, TextRequest)
                assert bytes(event.data) == b"SendTargets=All\0"
                pair.target.reply_text(event, text)
            ended = pair.to_initiator()
        assert ended == [exchange]
        assert len(exchange.pairs) == 100

    def test_text_with_a_stale_transfer_tag(self, pair: ConnectionPair) -> None:
        pdu = TextRequest(1, target_transfer_tag=0x55, cmd_sn=1)
        assert list(pair.to_target(wire(pdu.pack()))) == []
        assert only_output(pair, Reject).reason == RejectReason.INVALID_PDU_FIELD

    def test_task_management_and_logout_are_handed_on(self, pair: ConnectionPair) -> None:
        task = pair.initiator.command(0, READ, data_in=memoryview(bytearray(512)))
        list(pair.to_target())
        pair.initiator.task_management(1, task=task)
        (event,) = pair.to_target()
        assert isinstance(event, TaskManagementRequest)
        assert event.referenced_task_tag == task.initiator_task_tag
        pair.target.reply_task_management(event, TaskResponse.FUNCTION_COMPLETE)
        assert task in pair.to_initiator()
        pair.initiator.logout()
        (event,) = pair.to_target()
        assert isinstance(event, LogoutRequest)

    def test_request_in_parts_is_joined(self, pair: ConnectionPair) -> None:
        first = TextRequest(5, cmd_sn=1, final=False, more=True, data=b"SendTar")
        assert list(pair.to_target(wire(first.pack(), first.data))) == []
        answer = only_output(pair, TextResponse)
        second = TextRequest(
            5, target_transfer_tag=answer.target_transfer_tag, cmd_sn=2, data=b"gets=All\0"
        )
        (event,) = pair.to_target(wire(second.pack(), second.data))
        assert bytes(event.data) == b"SendTargets=All\0"
