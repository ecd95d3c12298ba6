"""Sessions and connections that come back, leave, fall silent or are told something."""

import threading
import time
from collections.abc import Iterator

import pytest

from serverfree.target.config import Limits
from serverfree.target.server import Server
from serverfree.target.units.command import Lane
from support.portal import (
    ASYNC_MESSAGE,
    DETACHED,
    LENGTH,
    NAME,
    QUEUED,
    REJECT,
    SHORT,
    TAKES_DATA,
    Client,
    PatientUnit,
    serving,
    until,
)
from support.process import settles
from support.scapy_iscsi import LoginRequest, LogoutRequest, NopOut, TextRequest
from support.wire import LOGIN_RESPONSE, LOGOUT_RESPONSE, R2T, ConnectionGone

INITIATOR = "iqn.2026-11.com.example:wire"
NOP_IN, TEXT_RESPONSE = 0x20, 0x24
POWER_ON = 0x2900


@pytest.fixture
def unit() -> PatientUnit:
    return PatientUnit("disk")


@pytest.fixture
def server(unit: PatientUnit) -> Iterator[Server]:
    with serving([unit]) as server:
        yield server


class Again(Client):
    """Logs in with the ISID of another client, and a TSIH and CID if wanted."""

    def __init__(self, server: Server, other: Client, tsih: int = 0, cid: int = 0) -> None:
        self._other, self._tsih, self._cid = other, tsih, cid
        super().__init__(server)

    def _login(self, initiator: str, target_name: str) -> None:
        keys = [f"InitiatorName={initiator}", f"TargetName={target_name}", "SessionType=Normal"]
        self.isid, self.cmd_sn = self._other.isid, self._other.cmd_sn
        self.send(
            LoginRequest(
                immediate=1,
                lun=self.isid << 16 | self._tsih,
                cid=self._cid,
                cmd_sn=self.cmd_sn,
                data="".join(key + "\0" for key in keys).encode(),
            )
        )
        answer = self.receive()
        assert answer.opcode == LOGIN_RESPONSE
        status = answer.data_sn >> 16
        if status:
            raise ConnectionGone(f"{status:04x}")


def tsih_of(server: Server) -> int:
    (session,) = server.targets[0].sessions()
    return session.tsih


class TestSessionReinstatement:
    """6.3.5: the same initiator port logs in without a TSIH."""

    def test_ends_the_old_session_with_everything_under_way(
        self, server: Server, unit: PatientUnit
    ) -> None:
        with Client(server) as old:
            old.attentions()
            old.start(DETACHED, 1)
            old.start(TAKES_DATA, 2, length=LENGTH)
            old.of_kind(R2T)
            assert until(lambda: unit.begun == [1])
            with Again(server, old) as new:
                assert unit.ended == [1]
                assert old.gone()
                assert len(server.targets[0].sessions()) == 1
                assert new.attentions() == [POWER_ON]
                assert new.answer(new.start(SHORT, 3)).status == 0
                assert unit.begun == [1, 3]

    def test_another_port_of_the_initiator_is_another_session(self, server: Server) -> None:
        with Client(server) as one, Client(server) as two:
            assert one.attention() == two.attention() == POWER_ON


class TestConnectionReinstatement:
    """6.3.4: with the TSIH and the CID that the session has."""

    def test_the_nexus_lives_on_and_its_commands_end(
        self, server: Server, unit: PatientUnit
    ) -> None:
        with Client(server) as old:
            old.attentions()
            old.start(DETACHED, 1)
            assert until(lambda: unit.begun == [1])
            before = tsih_of(server)
            with Again(server, old, tsih=before) as new:
                assert unit.ended == [1]
                assert old.gone()
                assert tsih_of(server) == before
                assert new.attentions() == []  # no unit has noticed
                assert new.answer(new.start(SHORT, 2)).status == 0
            assert settles(lambda: not server.targets[0].sessions())

    def test_keeps_what_the_leading_connection_agreed_on(self, server: Server) -> None:
        with Client(server) as old:
            (session,) = server.targets[0].sessions()
            agreed = session.parameters.max_burst_length
            with Again(server, old, tsih=session.tsih) as new:
                new.attentions()
                core = session.link._core  # type: ignore[attr-defined]
                assert core.parameters.max_burst_length == agreed
                assert core.parameters.initial_r2t == session.parameters.initial_r2t

    @pytest.mark.parametrize(
        ("tsih", "cid", "status"),
        [(0, 9, "0206"), (1, 0, "020a")],  # too many connections; no such session
    )
    def test_refusals_leave_the_session_alone(
        self, server: Server, tsih: int, cid: int, status: str
    ) -> None:
        with Client(server) as old:
            old.attentions()
            with pytest.raises(ConnectionGone, match=status):
                Again(server, old, tsih=tsih_of(server) + tsih, cid=cid)
            assert old.answer(old.start(SHORT, 2)).status == 0


@pytest.mark.served  # seconds of waiting, which the fast tests do without
class TestSilence:
    @pytest.fixture
    def server(self, unit: PatientUnit) -> Iterator[Server]:
        with serving([unit], Limits(ping_interval=1, ping_timeout=1)) as server:
            yield server

    def test_an_initiator_that_answers_pings_stays(self, server: Server) -> None:
        with Client(server) as client:
            for _ in range(2):
                ping = client.of_kind(NOP_IN)
                assert ping.initiator_task_tag == 0xFFFFFFFF
                client.send(
                    NopOut(
                        immediate=1,
                        initiator_task_tag=0xFFFFFFFF,
                        target_transfer_tag=ping.target_transfer_tag,
                        cmd_sn=client.cmd_sn,
                    )
                )
            assert client.attention() == POWER_ON

    def test_one_that_does_not_is_dropped_and_others_are_not(
        self, server: Server, unit: PatientUnit
    ) -> None:
        with Client(server) as dead, Client(server) as alive:
            alive.attentions()
            dead.start(DETACHED, 1)
            until_time = time.monotonic() + 10
            while len(server.targets[0].sessions()) == 2:
                assert time.monotonic() < until_time
                assert alive.answer(alive.start(SHORT, 2)).status == 0
                time.sleep(0.1)
            assert dead.gone()
            assert [kept.opcode for kept in dead.kept].count(NOP_IN) == 1
            assert alive.answer(alive.start(SHORT, 2)).status == 0


@pytest.mark.served
class TestAsynchronousMessages:
    def test_a_server_that_stops_asks_for_logout_and_waits_for_it(self, unit: PatientUnit) -> None:
        with serving([unit]) as server, Client(server) as client:
            client.attentions()
            stopping = _in_background(server.stop)
            message = client.of_kind(ASYNC_MESSAGE)
            assert message.data_sn >> 24 == 1
            seconds = message.buffer_offset & 0xFFFF
            assert 1 <= seconds <= 10
            assert client.answer(client.start(SHORT, 1)).status == 0  # it is served until then
            started = time.monotonic()
            client.logout()
            stopping.join(5)
            assert not stopping.is_alive()
            assert time.monotonic() - started < seconds / 2

    def test_a_server_may_be_stopped_twice(self, unit: PatientUnit) -> None:
        with serving([unit]) as server, Client(server) as client:
            client.attentions()
            server.stop()
            server.stop()
            assert client.gone()

    def test_who_does_not_leave_is_dropped_with_its_commands(self, unit: PatientUnit) -> None:
        with serving([unit]) as server, Client(server) as client:
            client.attentions()
            client.start(DETACHED, 1)
            assert until(lambda: unit.begun == [1])
            server.stop()
            assert unit.ended == [1]
            assert client.gone()

    def test_luns_that_change_are_told_unasked_and_by_unit_attention(self, server: Server) -> None:
        with Client(server) as client:
            client.attentions()
            target = server.targets[0]
            target.add(1, PatientUnit("new"))
            target.refresh()
            message = client.of_kind(ASYNC_MESSAGE)
            assert message.data_sn >> 24 == 0
            assert (
                message.data[2:].hex() == "70000600000000" + "0a" + "00000000" + "3f0e" + "00000000"
            )
            assert client.attentions() == [0x3F0E]

    def test_they_reach_an_initiator_that_has_long_been_idle(self, server: Server) -> None:
        with Client(server) as client:
            client.attentions()
            time.sleep(1.5)
            started = time.monotonic()
            server.targets[0].add(1, PatientUnit("new"))
            server.targets[0].refresh()
            client.of_kind(ASYNC_MESSAGE)
            assert time.monotonic() - started < 0.5


def _in_background(action):
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_text_in_full_feature_phase(server: Server) -> None:
    with Client(server) as client:
        client.send(
            TextRequest(
                immediate=1,
                initiator_task_tag=77,
                cmd_sn=client.cmd_sn,
                data=b"SendTargets=\0MaxRecvDataSegmentLength=512\0MaxBurstLength=512\0",
            )
        )
        answer = client.of_kind(TEXT_RESPONSE)
        pairs = [pair for pair in answer.data.split(b"\0") if pair]
        assert pairs[0] == b"TargetName=" + NAME.encode()
        assert pairs[-1] == b"MaxBurstLength=Reject"
        client.tag = 100
        inquiry = client.command(bytes.fromhex("1200000060 00".replace(" ", "")), data_in=96)
        assert inquiry.status == 0


def test_commands_and_management_have_no_place_in_discovery(server: Server) -> None:
    class Discovery(Client):
        def _login(self, initiator: str, target_name: str) -> None:
            data = f"InitiatorName={initiator}\0SessionType=Discovery\0".encode()
            self.send(LoginRequest(immediate=1, lun=self.isid << 16, cmd_sn=1, data=data))
            assert self.receive().data_sn >> 16 == 0

    with Discovery(server) as client:
        client.manage(5)
        assert client.of_kind(REJECT).response == 0x04
        client.start(SHORT, 1)
        assert client.of_kind(REJECT).response == 0x04
        client.send(LogoutRequest(immediate=1, initiator_task_tag=9, cmd_sn=client.cmd_sn))
        assert client.of_kind(LOGOUT_RESPONSE).response == 0


def test_commands_of_one_unit_do_not_hold_up_another_connection(
    server: Server, unit: PatientUnit
) -> None:
    with Client(server) as busy, Client(server) as other:
        busy.attentions()
        other.attentions()
        task = busy.start(QUEUED, 1)
        assert other.answer(other.start(SHORT, 2)).status == 0
        unit.let(1)
        assert busy.answer(task).status == 0


class BrokenUnit(PatientUnit):
    """Fails before the gate, where nothing is meant to."""

    broken = ""

    def lane(self, cdb: bytes) -> Lane:
        """See Unit."""
        if self.broken == "lane":
            raise RuntimeError("no lane")
        return super().lane(cdb)

    def data_out_length(self, cdb: bytes) -> int:
        """See Unit."""
        if self.broken == "length":
            raise RuntimeError("no length")
        return super().data_out_length(cdb)


@pytest.mark.served
@pytest.mark.parametrize("broken", ["lane", "length"])
def test_a_fault_before_the_gate_ends_its_connection_and_nothing_else(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    unit = BrokenUnit("disk")
    with serving([unit]) as server, Client(server) as witness, Client(server) as client:
        witness.attentions()
        client.attentions()
        unit.broken = broken
        client.start(TAKES_DATA if broken == "length" else SHORT, 1, length=LENGTH)
        assert client.gone()
        assert settles(lambda: len(server.targets[0].sessions()) == 1)
        assert "by a fault of ours" in caplog.text
        assert "no " + broken in caplog.text
        unit.broken = ""
        assert witness.answer(witness.start(SHORT, 2)).status == 0
        with Client(server) as again:
            again.attentions()
