"""Data-Out as a target may get it: every order that was agreed, both directions, hand-made PDUs."""

import itertools
import random
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.iscsi.codes import FINAL, NO_TAG, RejectReason
from serverfree.iscsi.negotiation import Offer
from serverfree.iscsi.pdu import R2T, DataOut, Reject, ScsiCommand, ScsiResponse
from serverfree.iscsi.target import OFFER
from serverfree.iscsi.task import Task
from serverfree.iscsi.testing import ConnectionPair, wire
from serverfree.scsi.status import Status

WRITE = bytes.fromhex("2a000000000000000800") + bytes(6)
READ = bytes.fromhex("28000000000000000800") + bytes(6)
ANY_ORDER = Offer(
    initial_r2t=False,
    max_burst_length=8192,
    first_burst_length=4096,
    max_outstanding_r2t=4,
    data_pdu_in_order=False,
    data_sequence_in_order=False,
)


def write_command(length: int, *, unsolicited: bool, data: bytes = b"", flags: int = 0x21) -> bytes:
    flags |= 0 if unsolicited else FINAL
    return wire(ScsiCommand(0, 1, length, 1, 0, WRITE, flags, data=data).pack(), data)


def data_out(tag: int, data_sn: int, offset: int, data: bytes, *, final: bool) -> bytes:
    return wire(DataOut(0, 1, tag, 0, data_sn, offset, final, data).pack(), data)


def requests(pair: ConnectionPair) -> list[R2T]:
    """Take the R2Ts that the target has sent."""
    output, pair.target.output = pair.target.output, []
    assert all(header[0] == R2T.OPCODE for header in output)
    return [R2T.unpack(header, b"") for header in output]


@dataclass
class Sequence:
    """What is asked for, cut into pieces in the order in which they are to be sent."""

    tag: int
    pieces: list[tuple[int, int]]
    data_sn: int = 0

    def next_pdu(self, data: bytes) -> bytes:
        start, end = self.pieces.pop(0)
        raw = data_out(self.tag, self.data_sn, start, data[start:end], final=not self.pieces)
        self.data_sn += 1
        return raw


def cut(draw: random.Random, start: int, end: int) -> list[tuple[int, int]]:
    marks = sorted({start, end, *(draw.randrange(start, end) for _ in range(draw.randrange(6)))})
    pieces = list(itertools.pairwise(marks))
    draw.shuffle(pieces)
    return pieces


@settings(max_examples=80, deadline=None)
@given(
    length=st.integers(1, 60_000),
    immediate=st.sampled_from((0, 512, 4096)),
    unsolicited=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_data_in_no_order_arrives_whole(
    length: int, immediate: int, unsolicited: bool, seed: int
) -> None:
    draw = random.Random(seed)
    data = draw.randbytes(length)
    pair = ConnectionPair(ANY_ORDER)
    assert not pair.target.parameters.data_pdu_in_order
    immediate = min(immediate, length)
    first_burst = min(4096, length)
    more = unsolicited and immediate < first_burst
    (task,) = pair.to_target(write_command(length, unsolicited=more, data=data[:immediate]))
    assert isinstance(task, Task)
    done = pair.target.solicit(task, length)
    sequences = []
    if more:
        assert pair.target.output == []  # nothing is asked for before what comes unasked is here
        sequences.append(Sequence(NO_TAG, cut(draw, immediate, first_burst)))
    while not done:
        for r2t in requests(pair):
            end = r2t.buffer_offset + r2t.desired_data_transfer_length
            sequences.append(Sequence(r2t.target_transfer_tag, cut(draw, r2t.buffer_offset, end)))
        assert 1 <= len(sequences) <= 4
        # Several sequences at once, each piece of any of them: all that the two keys allow.
        chosen = draw.choice(sequences)
        for event in pair.to_target(chosen.next_pdu(data)):
            assert event is task
            done = True
        if not chosen.pieces:
            sequences.remove(chosen)
    assert sequences == []
    assert bytes(task.data) == data
    pair.target.reply(task, Status.GOOD)
    response = ScsiResponse.unpack(pair.target.output[0], b"")
    assert (response.flags, response.residual_count) == (FINAL, 0)
    assert not pair.target.tasks


def asked(offer: Offer, length: int = 4096) -> tuple[ConnectionPair, int]:
    """A write of which everything was asked for, with its target transfer tag."""
    pair = ConnectionPair(offer)
    (task,) = pair.to_target(write_command(length, unsolicited=False))
    assert not pair.target.solicit(task, length)
    (r2t,) = requests(pair)
    return pair, r2t.target_transfer_tag


def ended(pair: ConnectionPair) -> int:
    """The status of the one task, which must be gone."""
    assert not pair.target.tasks
    return ScsiResponse.unpack(pair.target.output[0], b"").status


@pytest.mark.parametrize(
    "pieces",
    [
        [(512, 1024), (512, 1024)],  # twice
        [(512, 1536), (1024, 2048)],  # in part twice
        [(1024, 2048), (0, 1536)],  # up to and into what has come
        [(512, 8192)],  # beyond its end
    ],
)
def test_no_order_is_no_licence(pieces: list[tuple[int, int]]) -> None:
    pair, tag = asked(ANY_ORDER)
    for number, (start, end) in enumerate(pieces):
        final = number == len(pieces) - 1
        raw = data_out(tag, number, start, bytes(end - start), final=final)
        assert list(pair.to_target(raw)) == []
    assert ended(pair) == Status.CHECK_CONDITION


def test_a_gap_left_at_the_end_is_missing_data() -> None:
    pair, tag = asked(ANY_ORDER)
    assert list(pair.to_target(data_out(tag, 0, 2048, bytes(2048), final=True))) == []
    assert ended(pair) == Status.CHECK_CONDITION


def test_order_that_was_agreed_is_asked_for() -> None:
    pair, tag = asked(Offer())
    assert pair.target.parameters.data_pdu_in_order
    list(pair.to_target(data_out(tag, 0, 2048, bytes(2048), final=False)))
    list(pair.to_target(data_out(tag, 1, 0, bytes(2048), final=True)))
    assert ended(pair) == Status.CHECK_CONDITION


def test_bookkeeping_of_gaps_is_bounded() -> None:
    pair, tag = asked(Offer(data_pdu_in_order=False, max_burst_length=1 << 20), 1 << 20)
    stream = b"".join(
        data_out(tag, number, number * 2 + 1, b"x", final=False) for number in range(20_000)
    )
    assert list(pair.to_target(stream)) == []
    (task,) = pair.target.tasks.values()
    assert task.unsound
    (burst,) = task.transfer.asked.values()
    assert len(burst.ahead) <= 16384


@pytest.mark.parametrize(("theirs", "outcome"), [(True, True), (False, False)])
def test_order_is_what_the_initiator_wishes(theirs: bool, outcome: bool) -> None:
    pair = ConnectionPair(Offer(data_pdu_in_order=theirs, data_sequence_in_order=theirs), OFFER)
    assert pair.target.parameters.data_pdu_in_order is outcome
    assert pair.target.parameters.data_sequence_in_order is outcome


class TestBothDirections:
    """11.2.2.4: a command that takes data and returns data; 11.4.5: each with its residual."""

    AHS = struct.pack(">HBBI", 5, 2, 0, 1024)

    def command(self, ahs: bytes = AHS, length: int = 512) -> bytes:
        pdu = ScsiCommand(0, 1, length, 1, 0, WRITE, 0xE1, ahs=ahs, data=bytes(512))
        return pdu.pack() + ahs + bytes(512)

    @pytest.mark.parametrize(
        ("takes", "gives", "flags", "residual", "bidi_residual"),
        [
            (512, 1024, 0x80, 0, 0),
            (512, 100, 0x88, 0, 924),
            (512, 1500, 0x90, 0, 476),
            (256, 1024, 0x82, 256, 0),
            (2048, 1025, 0x94, 1536, 1),
        ],
    )
    def test_residuals(
        self, takes: int, gives: int, flags: int, residual: int, bidi_residual: int
    ) -> None:
        pair = ConnectionPair()
        (task,) = pair.to_target(self.command())
        assert isinstance(task, Task)
        assert pair.target.solicit(task, takes)
        assert len(task.data) == min(takes, 512)
        pair.target.reply(task, Status.GOOD, bytes(gives))
        data_in, data, response = pair.target.output
        assert (data_in[0], data_in[1] & 1, len(data)) == (0x25, 0, min(gives, 1024))
        answer = ScsiResponse.unpack(response, b"")
        assert (answer.flags, answer.residual_count) == (flags, residual)
        assert answer.bidi_residual_count == bidi_residual
        assert answer.exp_data_sn == 1

    def test_without_the_length_to_read_it_is_rejected(self) -> None:
        pair = ConnectionPair()
        assert list(pair.to_target(self.command(b""))) == []
        assert Reject.unpack(pair.target.output[0], b"").reason == RejectReason.INVALID_PDU_FIELD

    def test_a_long_cdb_and_the_length_may_come_together(self) -> None:
        extended = struct.pack(">HBB", 17, 1, 0) + bytes(range(16))
        pair = ConnectionPair()
        (task,) = pair.to_target(self.command(extended + self.AHS))
        assert isinstance(task, Task)
        assert task.cdb == WRITE + bytes(range(16))
        assert task.expected_read_length == 1024
