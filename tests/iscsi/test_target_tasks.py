"""The target's core: commands that are missing, aborts ahead of them, limits on the uninvited."""

import pytest

from serverfree.iscsi.codes import (
    FINAL,
    NO_TAG,
    AsyncEvent,
    RejectReason,
    TaskFunction,
)
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.pdu import (
    R2T,
    AsyncMessage,
    DataOut,
    NopIn,
    NopOut,
    Reject,
    ScsiCommand,
    TaskManagementRequest,
)
from serverfree.iscsi.target import OFFER, QUEUE_DEPTH, Event
from serverfree.iscsi.task import Task
from serverfree.iscsi.testing import ConnectionPair, wire

TEST_UNIT_READY = bytes(16)
WRITE = bytes.fromhex("2a000000000000000800") + bytes(6)


@pytest.fixture
def pair() -> ConnectionPair:
    return ConnectionPair()


def command(tag: int, cmd_sn: int, *, immediate: bool = False, data: bytes = b"") -> bytes:
    flags = FINAL | 1 | (0x20 if data else 0)
    pdu = ScsiCommand(0, tag, len(data), cmd_sn, 0, WRITE, flags, immediate, data=data)
    return wire(pdu.pack(), data)


def management(
    function: TaskFunction, cmd_sn: int, *, tag: int = NO_TAG, ref_cmd_sn: int = 0
) -> bytes:
    return TaskManagementRequest(
        function, 0x77, referenced_task_tag=tag, cmd_sn=cmd_sn, ref_cmd_sn=ref_cmd_sn
    ).pack()


def tags(events: list[Event]) -> list[int]:
    return [event.initiator_task_tag for event in events]


def rejects(pair: ConnectionPair) -> list[int]:
    output, pair.target.output = pair.target.output, []
    return [b[2] for b in output if len(b) == 48 and b[0] == Reject.OPCODE]


class TestAbortAheadOfItsCommand:
    """11.6.1: RefCmdSN in the window and before the request: the command counts as received."""

    def test_it_never_runs_and_nothing_waits_for_it(self, pair: ConnectionPair) -> None:
        (request,) = pair.to_target(management(TaskFunction.ABORT_TASK, 2, tag=5, ref_cmd_sn=1))
        assert isinstance(request, TaskManagementRequest)
        assert pair.target.take_as_received(request)
        assert tags(list(pair.to_target(command(6, 2)))) == [6]
        assert list(pair.to_target(command(5, 1))) == []  # it comes too late

    def test_also_if_it_came_and_waited_for_others(self, pair: ConnectionPair) -> None:
        assert list(pair.to_target(command(5, 2))) == []
        (request,) = pair.to_target(management(TaskFunction.ABORT_TASK, 3, tag=5, ref_cmd_sn=2))
        assert isinstance(request, TaskManagementRequest)
        assert pair.target.take_as_received(request)
        assert tags(list(pair.to_target(command(4, 1)))) == [4]
        assert tags(list(pair.to_target(command(6, 3)))) == [6]

    @pytest.mark.parametrize("ref_cmd_sn", [0, 2, 3, QUEUE_DEPTH + 1])
    def test_not_what_lies_behind_or_was_received(
        self, pair: ConnectionPair, ref_cmd_sn: int
    ) -> None:
        raw = management(TaskFunction.ABORT_TASK, 2, tag=5, ref_cmd_sn=ref_cmd_sn)
        (request,) = pair.to_target(raw)
        assert isinstance(request, TaskManagementRequest)
        assert not pair.target.take_as_received(request)


class TestFunctionsOfManyTasks:
    def test_of_a_unit_wait_for_the_commands_before_them(self, pair: ConnectionPair) -> None:
        """4.2.3.3 b."""
        assert list(pair.to_target(management(TaskFunction.ABORT_TASK_SET, 3))) == []
        assert tags(list(pair.to_target(command(6, 2)))) == []
        events = list(pair.to_target(command(5, 1)))
        assert tags(events) == [5, 6, 0x77]

    def test_of_a_target_take_them_as_received(self, pair: ConnectionPair) -> None:
        assert list(pair.to_target(command(6, 2))) == []
        events = list(pair.to_target(management(TaskFunction.TARGET_WARM_RESET, 3)))
        assert tags(events) == [0x77]
        assert tags(list(pair.to_target(command(7, 3)))) == [7]

    def test_many_that_wait_are_too_many(self, pair: ConnectionPair) -> None:
        for _ in range(100):
            assert list(pair.to_target(management(TaskFunction.ABORT_TASK_SET, 2))) == []
        reasons = rejects(pair)
        assert set(reasons) == {RejectReason.IMMEDIATE_COMMAND_REJECT}
        assert 50 < len(reasons) < 100


class TestAbandonedTasks:
    """4.2.3.3 a: what was asked for is waited for, and then goes nowhere."""

    def asked(self, pair: ConnectionPair) -> tuple[Task, int]:
        pdu = ScsiCommand(0, 1, 4096, 1, 0, WRITE, 0xA1)
        (task,) = pair.to_target(pdu.pack())
        assert isinstance(task, Task)
        assert not pair.target.solicit(task, 4096)
        r2t = R2T.unpack(pair.target.output.pop(), b"")
        return task, r2t.target_transfer_tag

    def test_comes_again_when_its_data_is_through(self, pair: ConnectionPair) -> None:
        task, tag = self.asked(pair)
        assert not pair.target.abandon(task)
        half = bytes(2048)
        first = DataOut(0, 1, tag, 0, 0, 0, False, half)
        last = DataOut(0, 1, tag, 0, 1, 2048, True, half)
        assert list(pair.to_target(wire(first.pack(), half))) == []
        assert list(pair.to_target(wire(last.pack(), half))) == [task]
        pair.target.drop(task)
        assert pair.target.output == []
        assert not pair.target.tasks

    def test_is_gone_at_once_if_nothing_was_asked_for(self, pair: ConnectionPair) -> None:
        (task,) = pair.to_target(command(1, 1, data=b"x" * 512))
        assert isinstance(task, Task)
        pair.target.keep(task)
        assert pair.target.abandon(task)
        assert not pair.target.tasks


class TestLimits:
    def test_data_of_commands_that_come_early(self, pair: ConnectionPair) -> None:
        data = bytes(1 << 20)
        assert len(data) == OFFER.max_recv_data_segment_length
        for number in range(2, 18):
            assert list(pair.to_target(command(number, number, data=data))) == []
        with pytest.raises(ProtocolError, match="too much data"):
            list(pair.to_target(command(18, 18, data=data)))

    def test_immediate_commands_under_way(self, pair: ConnectionPair) -> None:
        for number in range(QUEUE_DEPTH + 100):
            for task in pair.to_target(command(number, 1, immediate=True)):
                assert isinstance(task, Task)
                pair.target.keep(task)
        assert QUEUE_DEPTH < len(pair.target.tasks) < QUEUE_DEPTH + 100
        assert set(rejects(pair)) == {RejectReason.IMMEDIATE_COMMAND_REJECT}
        list(pair.to_target(NopOut(0, 999, NO_TAG, 1, 0, immediate=True).pack()))
        answer = NopIn.unpack(pair.target.output[0], b"")
        # The window is closed and no more than that: 4.2.2.1 has no sense for less.
        assert answer.max_cmd_sn == answer.exp_cmd_sn - 1


def test_ping_takes_no_status_number_and_is_answered(pair: ConnectionPair) -> None:
    pair.target.ping()
    ping = NopIn.unpack(pair.target.output[0], b"")
    assert ping.initiator_task_tag == NO_TAG
    assert ping.target_transfer_tag != NO_TAG
    assert pair.to_initiator() == []
    assert list(pair.to_target()) == []
    pair.target.ping()
    again = NopIn.unpack(pair.target.output[0], b"")
    assert again.stat_sn == ping.stat_sn
    assert again.target_transfer_tag != ping.target_transfer_tag


def test_asynchronous_message_carries_its_parameters_and_a_status_number(
    pair: ConnectionPair,
) -> None:
    pair.target.tell(AsyncEvent.LOGOUT_REQUEST, 0, 0, 9)
    pair.target.tell(AsyncEvent.SCSI_EVENT, data=b"\x70" + bytes(17))
    first, second, sense = (bytes(each) for each in pair.target.output[:3])
    message = AsyncMessage.unpack(first, b"")
    assert (message.event, message.parameter3) == (AsyncEvent.LOGOUT_REQUEST, 9)
    assert AsyncMessage.unpack(second, b"").stat_sn == message.stat_sn + 1
    assert sense == b"\x00\x12\x70" + bytes(17)


class TestNegotiationInFullFeaturePhase:
    def test_receive_length_holds_from_the_answer_on(self, pair: ConnectionPair) -> None:
        assert pair.target.negotiate([("MaxRecvDataSegmentLength", "1024")]) == []
        read = ScsiCommand(0, 1, 4096, 1, 0, bytes.fromhex("28") + bytes(15), 0xC1)
        (task,) = pair.to_target(read.pack())
        assert isinstance(task, Task)
        pair.target.reply(task, 0, bytes(4096))
        lengths = [len(buffer) for buffer in pair.target.output if buffer[0] != 0x25]
        assert lengths == [1024] * 4

    def test_what_belongs_to_login_is_rejected(self, pair: ConnectionPair) -> None:
        asked = [("MaxBurstLength", "512"), ("HeaderDigest", "CRC32C"), ("X-com.example.a", "1")]
        assert pair.target.negotiate(asked) == [
            ("MaxBurstLength", "Reject"),
            ("HeaderDigest", "Reject"),
            ("X-com.example.a", "NotUnderstood"),
        ]

    def test_a_breach_changes_nothing(self, pair: ConnectionPair) -> None:
        before = pair.target.parameters.max_send_data_segment_length
        with pytest.raises(ProtocolError):
            pair.target.negotiate(
                [("MaxRecvDataSegmentLength", "1024"), ("MaxRecvDataSegmentLength", "2048")]
            )
        assert pair.target.parameters.max_send_data_segment_length == before
