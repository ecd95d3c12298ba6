"""Task management as initiators see it, over sockets: what ends, when it is answered, who is told.

The client is hand-made from the RFC's layouts; the units' commands run until the test lets them.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serverfree.target.access import AccessList, Entry, LunMapping
from serverfree.target.server import Server
from support.disk import make_disk
from support.portal import (
    ASYNC_MESSAGE,
    BUSY,
    DETACHED,
    LENGTH,
    QUEUED,
    REJECT,
    SHORT,
    TAKES_DATA,
    TASK_MANAGEMENT_RESPONSE,
    Client,
    PatientUnit,
    serving,
    until,
)
from support.scapy_iscsi import DataOut, ScsiCommand
from support.wire import DATA_IN, R2T

ABORT_TASK, ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET = 1, 2, 3, 4
UNIT_RESET, WARM_RESET, COLD_RESET, REASSIGN = 5, 6, 7, 8
COMPLETE, NO_TASK, NO_LUN, NO_REASSIGN, NOT_SUPPORTED, NOT_AUTHORIZED = 0, 1, 2, 4, 5, 6
POWER_ON, DEVICE_RESET, CLEARED = 0x2900, 0x2903, 0x2F00


@pytest.fixture
def units() -> tuple[PatientUnit, PatientUnit]:
    return PatientUnit("first"), PatientUnit("second")


@pytest.fixture
def unit(units: tuple[PatientUnit, PatientUnit]) -> PatientUnit:
    return units[0]


@pytest.fixture
def server(units: tuple[PatientUnit, PatientUnit]) -> Iterator[Server]:
    with serving(units) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server) as client:
        assert client.attentions(0) == client.attentions(1) == [POWER_ON]
        yield client


@pytest.fixture
def other(server: Server) -> Iterator[Client]:
    with Client(server) as client:
        assert client.attentions(0) == client.attentions(1) == [POWER_ON]
        yield client


def response(client: Client, tag: int) -> int:
    answer = client.answer(tag)
    assert answer.opcode == TASK_MANAGEMENT_RESPONSE
    return answer.response


class TestAbortTask:
    def test_is_answered_when_the_command_has_ended(
        self, client: Client, unit: PatientUnit
    ) -> None:
        task = client.start(QUEUED, 1)
        assert until(lambda: unit.begun == [1])
        request = client.manage(ABORT_TASK, task=task)
        assert client.silent()
        unit.let(1)
        assert response(client, request) == COMPLETE
        assert unit.ended == [1]
        assert client.silent()  # an aborted command has no answer of its own

    def test_a_command_that_has_not_begun_never_does(
        self, client: Client, unit: PatientUnit
    ) -> None:
        running, waiting = client.start(QUEUED, 1), client.start(QUEUED, 2)
        assert response(client, client.manage(ABORT_TASK, task=waiting)) == COMPLETE
        unit.let(1, 2)
        assert client.answer(running).status == 0
        assert client.attention() == 0
        assert unit.begun == [1]

    def test_a_copy_stops_at_its_next_step(self, client: Client, unit: PatientUnit) -> None:
        task = client.start(DETACHED, 1)
        assert until(lambda: unit.begun == [1])
        assert response(client, client.manage(ABORT_TASK, task=task)) == COMPLETE
        assert unit.ended == [1]

    def test_data_that_comes_afterwards_goes_nowhere(
        self, client: Client, unit: PatientUnit
    ) -> None:
        task = client.start(TAKES_DATA, 1, length=LENGTH)
        r2t = client.of_kind(R2T)
        assert response(client, client.manage(ABORT_TASK, task=task)) == COMPLETE
        client.send(data_for(r2t, bytes(LENGTH)))
        assert client.attention() == 0
        assert unit.begun == []

    def test_what_is_not_there(self, client: Client) -> None:
        assert response(client, client.manage(ABORT_TASK, task=0x1234)) == NO_TASK

    def test_of_another_unit_is_not_there(self, client: Client, unit: PatientUnit) -> None:
        task = client.start(QUEUED, 1)
        assert response(client, client.manage(ABORT_TASK, lun=1, task=task)) == NO_TASK
        unit.let(1)
        assert client.answer(task).status == 0

    def test_a_command_still_to_come_is_aborted_before_it_comes(
        self, client: Client, unit: PatientUnit
    ) -> None:
        missing, client.cmd_sn = client.cmd_sn, client.cmd_sn + 1
        request = client.manage(ABORT_TASK, task=0x55, ref_cmd_sn=missing)
        assert response(client, request) == COMPLETE
        assert client.answer(client.start(SHORT, 2)).status == 0
        assert unit.begun == [2]


def data_for(r2t, data: bytes) -> DataOut:
    """All of the data that an R2T asks for, in one PDU."""
    return DataOut(
        lun=r2t.lun,
        initiator_task_tag=r2t.initiator_task_tag,
        target_transfer_tag=r2t.target_transfer_tag,
        buffer_offset=r2t.buffer_offset,
        data=data[r2t.buffer_offset :][: r2t.residual_count],
    )


class TestAbortTaskSet:
    def test_ends_what_this_initiator_sent_and_nothing_else(
        self, client: Client, other: Client, unit: PatientUnit
    ) -> None:
        mine = [client.start(QUEUED, 1), client.start(QUEUED, 2)]
        elsewhere = client.start(DETACHED, 4, lun=1)
        assert until(lambda: unit.begun == [1])
        theirs = other.start(QUEUED, 3)
        assert other.silent()
        request = client.manage(ABORT_TASK_SET)
        assert client.silent()
        unit.let(1, 2, 3)
        assert response(client, request) == COMPLETE
        assert other.answer(theirs).status == 0
        assert unit.begun == [1, 3]
        assert client.attention() == other.attention() == 0
        assert not [kept for kept in client.kept if kept.initiator_task_tag in mine]
        assert response(client, client.manage(ABORT_TASK, lun=1, task=elsewhere)) == COMPLETE

    def test_data_that_was_asked_for_is_waited_for(self, client: Client, unit: PatientUnit) -> None:
        """RFC 7143 4.2.3.3 a."""
        client.start(TAKES_DATA, 1, length=LENGTH)
        r2t = client.of_kind(R2T)
        request = client.manage(ABORT_TASK_SET)
        assert client.silent()
        client.send(data_for(r2t, bytes(LENGTH)))
        assert response(client, request) == COMPLETE
        assert unit.begun == []

    def test_but_not_for_ever(self, client: Client, unit: PatientUnit) -> None:
        """open-iscsi answers no R2T once it has asked for an abort (its FastAbort)."""
        client.start(TAKES_DATA, 1, length=LENGTH)
        client.of_kind(R2T)
        assert response(client, client.manage(ABORT_TASK_SET)) == COMPLETE
        assert client.answer(client.start(SHORT, 2)).status == 0
        assert unit.begun == [2]


class TestClearTaskSet:
    def test_tells_those_who_lost_commands_and_only_them(
        self, server: Server, client: Client, other: Client, unit: PatientUnit
    ) -> None:
        with Client(server) as third:
            assert third.attentions() == [POWER_ON]
            client.start(QUEUED, 1)
            assert until(lambda: unit.begun == [1])
            other.start(QUEUED, 2)
            assert other.silent()
            request = client.manage(CLEAR_TASK_SET)
            assert client.silent()
            unit.let(1, 2)
            assert response(client, request) == COMPLETE
            assert unit.begun == [1]
            assert client.attentions() == []
            assert other.attentions() == [CLEARED]
            assert third.attentions() == []

    def test_also_commands_of_others_whose_data_is_on_its_way(
        self, client: Client, other: Client, unit: PatientUnit
    ) -> None:
        task = other.start(TAKES_DATA, 2, length=LENGTH)
        r2t = other.of_kind(R2T)
        assert response(client, client.manage(CLEAR_TASK_SET)) == COMPLETE
        other.send(data_for(r2t, bytes(LENGTH)))
        assert other.attentions() == [CLEARED]
        assert unit.begun == []
        assert not [kept for kept in other.kept if kept.initiator_task_tag == task]


class TestResets:
    def test_unit_reset_ends_all_commands_of_the_unit_and_tells_everyone(
        self, client: Client, other: Client, units: tuple[PatientUnit, PatientUnit]
    ) -> None:
        unit, second = units
        client.start(QUEUED, 1)
        assert until(lambda: unit.begun == [1])
        other.start(QUEUED, 2)
        spared = other.start(QUEUED, 3, lun=1)
        assert other.silent()
        request = client.manage(UNIT_RESET)
        assert client.silent()
        assert unit.resets == 0
        unit.let(1)
        assert response(client, request) == COMPLETE
        assert (unit.resets, second.resets) == (1, 0)
        assert client.attentions() == other.attentions() == [DEVICE_RESET]
        second.let(3)
        assert other.answer(spared).status == 0
        assert unit.begun == [1]

    def test_warm_reset_resets_every_unit_and_keeps_the_sessions(
        self, client: Client, other: Client, units: tuple[PatientUnit, PatientUnit]
    ) -> None:
        copy = other.start(DETACHED, 2, lun=1)
        assert until(lambda: units[1].begun == [2])
        assert response(client, client.manage(WARM_RESET, lun=7)) == COMPLETE
        assert [unit.resets for unit in units] == [1, 1]
        for each in (client, other):
            assert each.attentions(0) == each.attentions(1) == [DEVICE_RESET]
        assert not [kept for kept in other.kept if kept.initiator_task_tag == copy]

    def test_cold_reset_ends_every_session(
        self, server: Server, client: Client, other: Client, unit: PatientUnit
    ) -> None:
        client.start(DETACHED, 1)
        assert until(lambda: unit.begun == [1])
        assert response(client, client.manage(COLD_RESET)) == COMPLETE
        assert unit.ended == [1]
        for each in (client, other):
            assert each.gone()
            (message,) = [kept for kept in each.kept if kept.opcode == ASYNC_MESSAGE]
            assert message.data_sn >> 24 == 3  # 11.9.1: the target drops all of the session
        with Client(server) as again:
            assert again.attentions() == [POWER_ON]
            assert again.answer(again.start(SHORT, 2)).status == 0


def test_resets_reach_what_the_initiator_may_see_and_no_further(
    server: Server, units: tuple[PatientUnit, PatientUnit]
) -> None:
    (target,) = server.targets
    target.access = AccessList((Entry("*", luns=(LunMapping(5, "second"),)),))
    with Client(server) as client:
        assert client.attentions(5) == [POWER_ON]
        assert response(client, client.manage(COLD_RESET)) == NOT_AUTHORIZED
        assert response(client, client.manage(WARM_RESET)) == COMPLETE
        assert [unit.resets for unit in units] == [0, 1]
        assert client.attentions(5) == [DEVICE_RESET]


@pytest.mark.parametrize(
    ("function", "lun", "answer"),
    [
        (CLEAR_ACA, 9, NO_LUN),
        (REASSIGN, 0, NO_REASSIGN),
        (0x33, 0, NOT_SUPPORTED),
        (ABORT_TASK_SET, 9, NO_LUN),
        (CLEAR_TASK_SET, 9, NO_LUN),
        (UNIT_RESET, 9, NO_LUN),
    ],
)
def test_refusals(client: Client, function: int, lun: int, answer: int) -> None:
    assert response(client, client.manage(function, lun=lun)) == answer


def test_many_requests_under_way_are_too_many(client: Client, unit: PatientUnit) -> None:
    task = client.start(QUEUED, 1)
    assert until(lambda: unit.begun == [1])
    tags = [client.manage(ABORT_TASK_SET) for _ in range(100)]
    assert client.of_kind(REJECT).response == 0x06
    unit.let(1)
    assert response(client, tags[0]) == COMPLETE
    assert task not in [kept.initiator_task_tag for kept in client.kept]


def test_what_is_supported_is_what_is_done(client: Client) -> None:
    """SPC-4 6.36: ATS, ATSS, CACAS, CTSS, LURS and TRS; no queries."""
    report = client.command(bytes.fromhex("a30d00000000000000100000"), data_in=16)
    assert (report.status, report.data.hex()) == (0, "fa000000")
    extended = client.command(bytes.fromhex("a30d80000000000000100000"), data_in=16)
    assert extended.data.hex() == "fa00000c" + "00" * 12


def test_reset_while_the_one_who_asked_leaves(
    server: Server, other: Client, unit: PatientUnit
) -> None:
    with Client(server) as client:
        client.attentions()
        client.start(TAKES_DATA, 1, length=LENGTH)
        client.of_kind(R2T)
        client.start(QUEUED, 2)
        assert until(lambda: unit.begun == [2])
        client.manage(UNIT_RESET)
        assert client.silent()
    unit.let(2)
    assert until(lambda: unit.resets == 1)
    assert other.attentions() == [DEVICE_RESET]


def test_preempt_and_abort_ends_the_commands_of_the_nexus_that_is_preempted(
    client: Client, other: Client, unit: PatientUnit
) -> None:
    """SPC-4 5.13.11.2.6: the answer comes when they have ended."""

    def reserve_out(client: Client, action: int, key: int, victim: int) -> int:
        parameters = key.to_bytes(8, "big") + victim.to_bytes(8, "big") + bytes(8)
        cdb = bytes((0x5F, action, 0x05, 0, 0, 0, 0, 0, 24, 0))
        ended = client.command(cdb, data_out=parameters)
        return ended.status

    assert reserve_out(client, 0, 0, 0xA) == reserve_out(other, 0, 0, 0xB) == 0  # REGISTER
    mine = client.start(DETACHED, 1)
    theirs = [other.start(DETACHED, 2), other.start(TAKES_DATA, 3, length=LENGTH)]
    r2t = other.of_kind(R2T)
    assert until(lambda: sorted(unit.begun) == [1, 2])
    client.tag += 1
    assert reserve_out(client, 5, 0xA, 0xB) == 0  # PREEMPT AND ABORT
    assert unit.ended == [2]
    other.send(data_for(r2t, bytes(LENGTH)))
    assert set(other.attentions()) == {0x2A05, CLEARED}
    assert sorted(unit.begun) == [1, 2]
    assert not [kept for kept in other.kept if kept.initiator_task_tag in theirs]
    unit.let(1)
    assert client.answer(mine).status == 0


def test_a_reset_waits_for_a_connection_in_the_middle_of_its_work(
    client: Client, other: Client, unit: PatientUnit
) -> None:
    """What it has in hand ends first, and a write whose last data came meanwhile never begins."""
    write = other.start(TAKES_DATA, 2, length=LENGTH)
    last = bytes(data_for(other.of_kind(R2T), bytes(LENGTH)))
    busy = ScsiCommand(
        flags=0x81,
        initiator_task_tag=50,
        cmd_sn=other.cmd_sn,
        cdb=bytes((BUSY, 1)).ljust(16, b"\0"),
    )
    other.cmd_sn += 1
    other.socket.sendall(bytes(busy) + last)  # one after the other from one buffer
    assert until(lambda: unit.begun == [1])
    request = client.manage(UNIT_RESET)
    assert client.silent()
    assert unit.resets == 0
    unit.let(1)
    assert response(client, request) == COMPLETE
    assert other.answer(50).status == 0
    assert client.attentions() == other.attentions() == [DEVICE_RESET]
    assert unit.begun == [1]
    assert not [kept for kept in other.kept if kept.initiator_task_tag == write]


def test_other_traffic_does_not_prolong_the_wait_for_data(client: Client) -> None:
    client.start(TAKES_DATA, 1, length=LENGTH)
    client.of_kind(R2T)
    request = client.manage(ABORT_TASK_SET)
    started = time.monotonic()
    while not [kept for kept in client.kept if kept.initiator_task_tag == request]:
        assert client.answer(client.start(SHORT, 2)).status == 0
        assert time.monotonic() - started < 5


def test_one_that_reads_nothing_does_not_hold_up_a_reset(tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk.img", 64 << 20)
    read = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 32768, 0)
    with serving([disk]) as server, Client(server) as slow, Client(server) as client:
        assert slow.attentions() == client.attentions() == [POWER_ON]
        for _ in range(8):  # 128 MiB of answers, more than any socket takes
            slow.tag += 1
            slow.send(
                ScsiCommand(
                    flags=0xC1,
                    initiator_task_tag=slow.tag,
                    expected_data_transfer_length=16 << 20,
                    cmd_sn=slow.cmd_sn,
                    cdb=read.ljust(16, b"\0"),
                )
            )
            slow.cmd_sn += 1
        assert slow.receive().opcode == DATA_IN
        started = time.monotonic()
        assert response(client, client.manage(UNIT_RESET)) == COMPLETE
        assert time.monotonic() - started < 5
        assert client.attentions() == [DEVICE_RESET]
