"""The blocking shell: threads, time-outs, lost connections, redirects, counters, discovery."""

import struct
import threading
import time

import pytest

from serverfree.initiator.connection import Timing
from serverfree.initiator.discovery import discover
from serverfree.initiator.secrets import SecretError
from serverfree.initiator.session import CommandTimeout, Session
from serverfree.initiator.urls import open_session
from serverfree.iscsi.codes import LoginStatus, TaskResponse
from serverfree.iscsi.errors import LoginFailure, SessionLost
from serverfree.iscsi.names import DiscoveredTarget, Portal
from serverfree.iscsi.pdu import LoginResponse
from serverfree.scsi.status import Status
from support.scripted_target import NAME, NO_TAG, ScriptedTarget, nop_in, pad, response

TEST_UNIT_READY = bytes(6)
COMMAND, TASK_MANAGEMENT, TEXT, LOGOUT, NOP_OUT = 0x01, 0x42, 0x44, 0x46, 0x40
QUICK = Timing(connect=2, login=2, ping=0.1, silence=0.5, logout=0.5)


def tag_of(header):
    return struct.unpack_from(">I", header, 16)[0]


def obliging(target, header, data):
    """Answer everything well."""
    tag, opcode = tag_of(header), header[0]
    if opcode == NOP_OUT:
        return [] if tag == NO_TAG else [nop_in(tag, target.next_stat_sn(), data)]
    answer = {COMMAND: 0x21, TASK_MANAGEMENT: 0x22, LOGOUT: 0x26}[opcode]
    return [response(tag, target.next_stat_sn(), opcode=answer)]


def session_with(target, timing=QUICK):
    return Session("127.0.0.1", target.port, NAME, timing=timing)


def test_log_in_command_ping_log_out():
    with ScriptedTarget(obliging) as target:
        with session_with(target) as session:
            result = session.unit(0).submit(TEST_UNIT_READY).wait()
            assert result.status is Status.GOOD
            assert session.ping() < 2
        assert [header[0] for header in target.seen] == [COMMAND, NOP_OUT, LOGOUT]
        with pytest.raises(SessionLost):
            session.unit(0).submit(TEST_UNIT_READY)
        session.close()  # once more is harmless


def test_the_counters_are_what_the_target_counts():
    with ScriptedTarget(obliging) as target:
        with session_with(target) as session:
            session.unit(1).submit(b"\x2a" + bytes(9), data_out=b"x" * 1001).wait()
        assert session.bytes_sent == target.bytes_received
        assert session.bytes_received == target.bytes_sent
        assert session.bytes_sent > 1001 + 3 + 3 * 48


def test_commands_of_many_threads_share_a_session():
    """Answers come in the reverse order, in batches: each thread gets its own."""
    held = []

    def script(target, header, data):
        if header[0] != COMMAND:
            return obliging(target, header, data)
        held.append(header)
        if len(held) < 4:
            return []
        answers = [
            response(tag_of(one), target.next_stat_sn(), status=0x18 if one[37] % 2 else 0)
            for one in reversed(held)
        ]
        held.clear()
        return answers

    with ScriptedTarget(script) as target, session_with(target) as session:
        wrong = []

        def work(number):
            unit = session.unit(number)
            for _ in range(25):
                result = unit.submit(bytes((0, 0, 0, 0, 0, number))).wait()
                if result.status is not (
                    Status.RESERVATION_CONFLICT if number % 2 else Status.GOOD
                ):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
        assert not wrong


def test_a_lost_connection_reaches_every_waiting_thread():
    def script(target, header, data):
        return None if len(target.seen) == 3 else []

    with ScriptedTarget(script) as target:
        session = session_with(target)
        caught = []

        def work():
            try:
                session.unit(0).submit(TEST_UNIT_READY).wait()
            except SessionLost as error:
                caught.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(caught) == 3
        assert all("127.0.0.1" in text for text in caught)


def test_a_slow_command_is_waited_for_as_long_as_the_target_lives():
    """Longer than the silence allowed: pings keep it alive."""

    def script(target, header, data):
        if header[0] == COMMAND:
            tag, stat_sn = tag_of(header), target.next_stat_sn

            def later():
                target.send(response(tag, stat_sn()))

            threading.Timer(2.5, later).start()
            return []
        return obliging(target, header, data)

    patient = Timing(ping=0.2, silence=1.5, logout=0.5)
    with ScriptedTarget(script) as target, session_with(target, patient) as session:
        assert session.unit(0).submit(TEST_UNIT_READY).wait().status is Status.GOOD
        assert NOP_OUT in [header[0] for header in target.seen]


def pings_of(target, tag):
    return [
        header
        for header in target.seen
        if header[0] == NOP_OUT and header[16:24] == struct.pack(">II", NO_TAG, tag)
    ]


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("attended", [True, False])
def test_an_attended_session_answers_while_nobody_asks_for_anything(attended):
    timing = Timing(logout=0.5, attend=0.02)
    with (
        ScriptedTarget(obliging) as target,
        Session("127.0.0.1", target.port, NAME, timing=timing, attended=attended) as session,
    ):
        target.send(nop_in(NO_TAG, target.stat_sn, transfer_tag=77))
        if attended:
            until(lambda: pings_of(target, 77))
        else:
            time.sleep(0.2)
            assert not pings_of(target, 77)
        assert session.unit(0).submit(TEST_UNIT_READY).wait().status is Status.GOOD
        until(lambda: len(pings_of(target, 77)) == 1)


def test_an_attended_session_knows_that_its_target_has_gone():
    timing = Timing(logout=0.5, attend=0.02)
    with ScriptedTarget(obliging) as target:
        session = Session("127.0.0.1", target.port, NAME, timing=timing, attended=True)
        name = f"attends {session.portal}"
        pending = session.unit(0).submit(TEST_UNIT_READY)
        until(lambda: pending.done)  # nobody waits for it, and its end is seen
        target.hang_up()
        until(lambda: session._over.is_set())
        with pytest.raises(SessionLost):
            session.unit(0).submit(TEST_UNIT_READY)
    until(lambda: all(thread.name != name for thread in threading.enumerate()))


def test_a_silent_target_is_given_up():
    with ScriptedTarget(lambda target, header, data: []) as target:
        session = session_with(target)
        started = time.monotonic()
        with pytest.raises(SessionLost, match="sign of life"):
            session.unit(0).submit(TEST_UNIT_READY).wait()
        assert 0.4 < time.monotonic() - started < 3


def test_an_impatient_caller_may_wait_again_or_abort():
    def script(target, header, data):
        if header[0] == COMMAND:
            return []
        return obliging(target, header, data)

    with ScriptedTarget(script) as target, session_with(target) as session:
        pending = session.unit(0).submit(TEST_UNIT_READY)
        with pytest.raises(CommandTimeout):
            pending.wait(0.05)
        assert not pending.done
        assert pending.abort() is TaskResponse.FUNCTION_COMPLETE
        assert pending.wait().status is Status.TASK_ABORTED
        # Function, referenced tag.
        header = target.seen[1]
        assert (header[1], struct.unpack_from(">I", header, 20)[0]) == (
            0x81,
            tag_of(target.seen[0]),
        )


def test_a_target_that_does_not_answer_an_abort_is_left():
    def script(target, header, data):
        return []

    with ScriptedTarget(script) as target, session_with(target, Timing()) as session:
        pending = session.unit(0).submit(TEST_UNIT_READY)
        began = time.monotonic()
        with pytest.raises(SessionLost, match=r"no answer within 0\.2 s to ABORT_TASK"):
            pending.abort(0.2)
        assert pending.done
        session.close()
        assert time.monotonic() - began < 3, "no logout is tried"


def test_a_thread_returns_when_its_command_ends_though_another_moves_the_bytes():
    def script(target, header, data):
        if header[0] != COMMAND or len(target.seen) > 2:
            return obliging(target, header, data)
        if len(target.seen) == 1:
            return []
        slow = response(tag_of(target.seen[0]), target.stat_sn + 1)
        threading.Timer(2, lambda: target.send(slow)).start()
        return [response(tag_of(header), target.stat_sn)]

    patient = Timing(logout=0.5)
    with ScriptedTarget(script) as target, session_with(target, patient) as session:
        driver = threading.Thread(target=session.unit(0).submit(TEST_UNIT_READY).wait)
        driver.start()
        while not session._driving:
            time.sleep(0.01)
        started = time.monotonic()
        session.unit(0).submit(TEST_UNIT_READY).wait()
        assert time.monotonic() - started < 1.5
        assert driver.is_alive()
        driver.join(5)
        assert not driver.is_alive()


def test_closing_ends_what_another_thread_waits_for():
    def script(target, header, data):
        return [] if header[0] == COMMAND else obliging(target, header, data)

    with ScriptedTarget(script) as target:
        session = session_with(target, Timing())
        caught = []

        def work():
            try:
                session.unit(0).submit(TEST_UNIT_READY).wait()
            except SessionLost as error:
                caught.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while not target.seen:
            time.sleep(0.01)
        session.close()
        thread.join(5)
        assert not thread.is_alive()
        assert len(caught) == 1


def test_a_target_that_ignores_the_logout_is_left():
    with ScriptedTarget(lambda target, header, data: []) as target:
        session = session_with(target)
        started = time.monotonic()
        session.close()
        assert time.monotonic() - started < 3


def test_a_target_that_breaks_the_protocol_is_left():
    def script(target, header, data):
        return [response(0x1234, target.next_stat_sn())]

    with ScriptedTarget(script) as target:
        session = session_with(target)
        with pytest.raises(SessionLost, match="broke the protocol"):
            session.unit(0).submit(TEST_UNIT_READY).wait()


def test_a_large_write_goes_on_while_the_target_answers_nothing_yet():
    """The socket is full and the target is busy sending to us: nobody waits for the other."""
    size = 3 << 20

    def script(target, header, data):
        if header[0] != COMMAND:
            return obliging(target, header, data) if header[0] & 0x40 else []
        tag = tag_of(header)
        r2t = (
            bytes((0x31, 0x80)) + bytes(6) + struct.pack(">QII", 0, tag, 1)
            + struct.pack(">III", target.stat_sn, 1, 1000)
            + struct.pack(">III", 0, len(data), size - len(data))
        )  # fmt: skip
        got = len(data)
        target.send(r2t)
        while got < size:
            # 64 KiB of unasked-for pings for every Data-Out that is read.
            for _ in range(16):
                target.send(nop_in(NO_TAG, target.stat_sn, b"p" * 4096))
            head, part = target._pdu()
            assert head[0] == 0x05
            got += len(part)
        return [response(tag, target.next_stat_sn())]

    with ScriptedTarget(script) as target, session_with(target, Timing()) as session:
        result = session.unit(0).submit(b"\x2a" + bytes(9), data_out=bytearray(size)).wait(30)
        assert result.status is Status.GOOD


def test_sending_goes_on_as_soon_as_a_slow_target_reads():
    """The socket is full, nothing comes in: room to send must wake the driver."""
    size = 8 << 20

    def script(target, header, data):
        if header[0] != COMMAND:
            return obliging(target, header, data)
        tag, got = tag_of(header), len(data)
        r2t = bytes((0x31, 0x80)) + bytes(6) + struct.pack(">QII", 0, tag, 1)
        target.send(r2t + struct.pack(">IIIIII", target.stat_sn, 1, 1000, 0, got, size - got))
        time.sleep(0.5)
        while got < size:
            got += len(target._pdu()[1])
        return [response(tag, target.next_stat_sn())]

    slow = ScriptedTarget(script, receive_buffer=1 << 16)
    with slow as target, session_with(target, Timing()) as session:
        started = time.monotonic()
        session.unit(0).submit(b"\x2a" + bytes(9), data_out=bytearray(size)).wait(30)
        assert time.monotonic() - started < 8


# ---------------------------------------------------------------------- login and discovery


def refuse(status, data=b""):
    def answer(request):
        return LoginResponse(
            request.isid, 0, request.initiator_task_tag, 0, 0, 0, False, False,
            request.current_stage, 0, status, data=data,
        )  # fmt: skip

    return answer


def test_a_refused_login_says_who_refused_what():
    with ScriptedTarget(obliging, refuse(LoginStatus.AUTHORIZATION_FAILURE)) as target:
        with pytest.raises(LoginFailure) as caught:
            session_with(target)
        assert caught.value.status is LoginStatus.AUTHORIZATION_FAILURE
        assert NAME in str(caught.value)
        assert str(target.port) in str(caught.value)


def test_a_redirection_is_followed():
    with ScriptedTarget(obliging) as home:
        address = f"TargetAddress=127.0.0.1:{home.port},1\0".encode()
        moved = refuse(LoginStatus.TARGET_MOVED_TEMPORARILY, address)
        with ScriptedTarget(obliging, moved) as front, session_with(front) as session:
            assert session.portal == home.portal
            assert session.unit(0).submit(TEST_UNIT_READY).wait().status is Status.GOOD


def test_nobody_there_is_a_lost_session():
    with ScriptedTarget(obliging) as target:
        port = target.port
    with pytest.raises(SessionLost, match="cannot connect"):
        Session("127.0.0.1", port, NAME, timing=QUICK)


def test_a_login_without_an_answer_ends():
    def no_answer(request):
        time.sleep(1.5)
        return

    with ScriptedTarget(obliging, no_answer) as target:
        timing = Timing(login=0.3)
        with pytest.raises(SessionLost, match="no answer"):
            session_with(target, timing)


def test_discovery_lists_what_the_portal_tells():
    def script(target, header, data):
        if header[0] != TEXT:
            return obliging(target, header, data)
        assert data == b"SendTargets=All\0"
        text = f"TargetName={NAME}\0TargetAddress=10.0.0.1:3260,1\0TargetAddress=[fd00::1]:3261,2\0"
        head = bytes((0x24, 0x80, 0, 0)) + struct.pack(">I8xII", len(text), tag_of(header), NO_TAG)
        numbers = struct.pack(">III", target.next_stat_sn(), 1, 1000)
        return [head + numbers + bytes(12) + pad(text.encode())]

    with ScriptedTarget(script) as target:
        assert discover("127.0.0.1", target.port, timing=QUICK) == [
            DiscoveredTarget(NAME, (Portal("10.0.0.1", 3260, 1), Portal("fd00::1", 3261, 2)))
        ]


def test_a_password_that_rfc_7143_forbids_is_refused_without_showing_it():
    with pytest.raises(SecretError) as caught:
        open_session(f"iscsi://jo%hushhush@127.0.0.1:1/{NAME}/0")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("step", ["send", "receive"])
def test_an_interrupt_while_bytes_move_ends_the_session_at_once(monkeypatch, step):
    """Whoever tidies up after Ctrl-C does not wait for data that was never sent."""
    with ScriptedTarget(obliging) as target, session_with(target) as session:
        first = session.unit(0).enqueue(TEST_UNIT_READY)
        connection = session._connection
        real = getattr(connection, step)

        def interrupted(*arguments):
            monkeypatch.setattr(connection, step, real)
            raise KeyboardInterrupt

        monkeypatch.setattr(connection, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            first.wait()
        with pytest.raises(SessionLost, match="interrupted"):
            first.wait(2)


def test_an_interrupt_while_nothing_moves_costs_nothing(monkeypatch):
    with ScriptedTarget(obliging) as target, session_with(target) as session:
        command = session.unit(0).enqueue(TEST_UNIT_READY)
        connection = session._connection
        real = connection.wait

        def interrupted(**arguments):
            monkeypatch.setattr(connection, "wait", real)
            raise KeyboardInterrupt

        monkeypatch.setattr(connection, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            command.wait()
        assert command.wait(2).status is Status.GOOD
