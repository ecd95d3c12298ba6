"""What a configuration becomes: who gets in, what each sees, and what a reload changes."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serverfree.cli.processes import SERVERFREE
from serverfree.initiator.discovery import discover
from serverfree.initiator.disk import Disk
from serverfree.initiator.session import Session
from serverfree.iscsi.chap import Credentials
from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure, SessionLost
from serverfree.scsi.cdb.copy import ExtendedCopy
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockToBlock
from serverfree.scsi.designator import locally_assigned
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.target.config import ConfigError
from serverfree.target.config_file import load
from serverfree.target.service import Service

STORAGE = "iqn.2026-11.com.example:storage"
OTHER = "iqn.2026-11.com.example:other"
ME = "iqn.2026-11.com.example:me"
HOST = "iqn.2026-11.com.example:host"
ALICE = Credentials("alice", b"opensesame-alice")
TEST_UNIT_READY = bytes(6)
DATA_ARRIVES = bytes(range(256)) * 2


class Served:
    """A service over a configuration in `folder`; `{iqn}` in the text is STORAGE."""

    def __init__(self, folder: Path, text: str) -> None:
        secret = folder / "alice.secret"
        secret.write_bytes(ALICE.secret)
        secret.chmod(0o600)
        self.path = folder / "served.toml"
        self.write(text)
        self.service = Service(load(self.path))
        self.addresses = self.service.start()
        self.port = self.addresses[0].port

    def write(self, text: str) -> None:
        preface = "" if "[server]" in text else '[server]\nportals = ["127.0.0.1:0"]\n'
        account = '[account.alice]\nsecret_file = "alice.secret"\n'
        self.path.write_text(preface + account + text)

    def reload(self, text: str) -> None:
        self.write(text)
        self.service.reload(load(self.path))

    def log_in(
        self, name: str = ME, target: str | None = STORAGE, port: int = 0, **more
    ) -> Session:
        return Session("127.0.0.1", port or self.port, target, name, **more)


@pytest.fixture
def serve(tmp_path) -> Iterator:
    services = []

    def start(text: str) -> Served:
        served = Served(tmp_path, text)
        services.append(served.service)
        return served

    yield start
    for service in services:
        service.stop()


def target(*units: str, iqn: str = STORAGE, more: str = "") -> str:
    """The text of a target with disks of these names and of 1 MiB."""
    tables = "".join(
        f'[[target.disk]]\nname = "{name}"\npath = "{name}.img"\nsize = "1MiB"\n' for name in units
    )
    return f'[[target]]\niqn = "{iqn}"\n{more}\n{tables}'


def access(initiator: str, more: str = "") -> str:
    return f'[[target.access]]\ninitiator = "{initiator}"\n{more}\n'


@contextmanager
def refused(status):
    with pytest.raises(LoginFailure) as caught:
        yield
    assert caught.value.status is status


def attention(session, lun):
    """Return what the unit has to tell, None if nothing."""
    sense = session.unit(lun).submit(TEST_UNIT_READY).wait().sense
    if sense is None:
        return None
    assert sense.key is SenseKey.UNIT_ATTENTION
    return sense.asc


def greet(session, *luns):
    """Hear the power-on attention of each unit."""
    for lun in luns:
        assert attention(session, lun) is Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED


# ---------------------------------------------------------------------- access lists


def test_an_initiator_outside_the_list_gets_0202(serve):
    served = serve(target("d") + access(HOST))
    with served.log_in(HOST) as session:
        assert session.report_luns() == [0]
    with refused(LoginStatus.AUTHORIZATION_FAILURE):
        served.log_in(ME)


def test_an_exact_name_wins_over_a_wildcard_and_a_longer_over_a_shorter(serve):
    lists = "".join(
        access(name, f'luns = [{{ lun = {lun}, unit = "d" }}]')
        for name, lun in (("*", 1), ("iqn.2026-11.com.example:h*", 2), (HOST, 3), ("iqn.*", 4))
    )
    served = serve(target("d") + lists)
    seen = {}
    for name in (HOST, HOST + "2", ME, "naa.0123456789abcdef"):
        with served.log_in(name) as session:
            seen[name] = session.report_luns()
    assert list(seen.values()) == [[3], [2], [4], [1]]


def test_each_initiator_sees_its_own_numbers(serve):
    served = serve(
        target("a", "b", "c")
        + access(HOST, 'luns = [{ lun = 7, unit = "c" }, { lun = 300, unit = "a" }]')
        + access(ME)
    )
    with served.log_in(HOST) as host, served.log_in(ME) as me:
        assert host.report_luns() == [7, 300]
        assert me.report_luns() == [0, 1, 2]
        greet(host, 7, 300)
        greet(me, 0, 1, 2)
        Disk(host.unit(7)).write(3, DATA_ARRIVES)
        assert bytes(Disk(me.unit(2)).read(3, 1)) == DATA_ARRIVES
        names = [Disk(me.unit(lun)).identification().designators for lun in range(3)]
        assert Disk(host.unit(7)).identification().designators == names[2]
        assert Disk(host.unit(300)).identification().designators == names[0]
        with pytest.raises(CheckCondition) as caught:
            Disk(host.unit(0)).read(0, 1)
        assert caught.value.sense.asc is Asc.LOGICAL_UNIT_NOT_SUPPORTED


def test_read_only_is_a_matter_of_the_nexus(serve):
    served = serve(
        target("a", "b")
        + access(
            HOST, 'luns = [{ lun = 0, unit = "a", read_only = true }, { lun = 1, unit = "b" }]'
        )
        + access(ME)
    )
    with served.log_in(HOST) as host, served.log_in(ME) as me:
        greet(host, 0, 1)
        greet(me, 0, 1)
        with pytest.raises(CheckCondition) as caught:
            Disk(host.unit(0)).write(0, DATA_ARRIVES)
        assert caught.value.sense.key is SenseKey.DATA_PROTECT
        assert caught.value.sense.asc is Asc.WRITE_PROTECTED
        Disk(me.unit(0)).write(0, DATA_ARRIVES)
        assert bytes(Disk(host.unit(0)).read(0, 1)) == DATA_ARRIVES
        Disk(host.unit(1)).write(0, DATA_ARRIVES)
        protected = {
            (session, lun): mode_sense(session, lun)[2] & 0x80
            for session in (host, me)
            for lun in (0, 1)
        }
        assert list(protected.values()) == [0x80, 0, 0, 0]


def mode_sense(session, lun):
    """MODE SENSE(6) of all pages."""
    data = bytearray(252)
    command = session.unit(lun).submit(bytes.fromhex("1a003f00fc00"), data_in=memoryview(data))
    assert command.wait().status == 0
    return data


def copy_block(session, source, destination):
    """Have LUN 0 copy the first block of one disk of STORAGE to another; return how it ended."""
    names = [locally_assigned(STORAGE, name) for name in (source, destination)]
    cscds = [IdentificationCscd(name, BlockParameters(512), 0) for name in names]
    parameters = CopyList(cscds, [BlockToBlock(0, 1, 1, 0, 0)]).pack()
    cdb = ExtendedCopy(parameter_list_length=len(parameters)).pack()
    return session.unit(0).submit(cdb, data_out=parameters).wait()


def test_a_copy_may_do_no_more_than_the_initiator_that_asks_for_it(serve):
    mine = "{ lun = 0, unit = 'a' }, { lun = 1, unit = 'b', read_only = true }"
    served = serve(target("a", "b", "c") + access(HOST, f"luns = [{mine}]") + access(ME))
    with served.log_in(HOST) as host, served.log_in(ME) as me:
        greet(host, 0, 1)
        greet(me, 0, 1, 2)
        Disk(me.unit(1)).write(0, DATA_ARRIVES)
        assert copy_block(host, "b", "a").status == 0
        assert bytes(Disk(host.unit(0)).read(0, 1)) == DATA_ARRIVES
        for source, destination in (("a", "b"), ("c", "a"), ("a", "c")):
            result = copy_block(host, source, destination)
            assert result.status == 2, (source, destination)
            assert result.sense.key is SenseKey.COPY_ABORTED
        assert copy_block(me, "b", "c").status == 0
        assert bytes(Disk(me.unit(2)).read(0, 1)) == DATA_ARRIVES


# ---------------------------------------------------------------------- portals, limits, redirect


def test_a_target_is_at_the_portals_of_its_groups_only(serve):
    served = serve(
        '[server]\nportals = ["127.0.0.1:0", "127.0.0.1:0,2", "127.0.0.1:0,2"]\n'
        + target("a", more="portal_groups = [2]")
        + target("b", iqn=OTHER)
    )
    one, two, three = (address.port for address in served.addresses)
    with refused(LoginStatus.NOT_FOUND):
        served.log_in(port=one)
    for port in (two, three):
        with served.log_in(port=port) as session:
            assert session.report_luns() == [0]
    for port in (one, two):
        found = {
            each.name: sorted((portal.port, portal.group_tag) for portal in each.portals)
            for each in discover("127.0.0.1", port)
        }
        assert found == {
            STORAGE: sorted([(two, 2), (three, 2)]),
            OTHER: sorted([(one, 1), (two, 2), (three, 2)]),
        }


def test_the_same_initiator_port_has_a_session_in_each_group(serve, monkeypatch):
    """RFC 7143 4.4: the nexus is between initiator port and portal group."""
    monkeypatch.setattr("serverfree.initiator.session.random_isid", lambda: b"\x80\0\0\1\0\0")
    served = serve('[server]\nportals = ["127.0.0.1:0", "127.0.0.1:0,2"]\n' + target("a"))
    one, two = (address.port for address in served.addresses)
    with served.log_in(port=one) as first, served.log_in(port=two) as second:
        assert first.ping() < 5
        assert second.ping() < 5
        with served.log_in(port=two):
            with pytest.raises(SessionLost):
                second.ping()
            assert first.ping() < 5


def test_discovery_tells_what_the_asker_may_log_in_at(serve):
    served = serve(target("a") + access(HOST) + target("b", iqn=OTHER))
    assert [one.name for one in discover("127.0.0.1", served.port, ME)] == [OTHER]
    assert [one.name for one in discover("127.0.0.1", served.port, HOST)] == [STORAGE, OTHER]


@pytest.mark.parametrize("permanent", ["true", "false"])
def test_a_target_sends_its_initiators_elsewhere(serve, tmp_path, permanent):
    (tmp_path / "new").mkdir()
    new = Served(tmp_path / "new", target("d"))
    try:
        moved = f'redirect = {{ portal = "127.0.0.1:{new.port}", permanent = {permanent} }}'
        served = serve(target(more=moved) + access(ME))
        with served.log_in() as session:
            assert session.portal.port == new.port
            assert session.report_luns() == [0]
        with refused(LoginStatus.AUTHORIZATION_FAILURE):
            served.log_in(HOST)
    finally:
        new.service.stop()


def test_limits_refuse_the_newcomer_and_nobody_else(serve):
    served = serve(
        "[limits]\nsessions = 2\nconnections_per_initiator = 2\n"
        + target("d")
        + target("e", iqn=OTHER)
    )
    with served.log_in() as first, served.log_in(HOST) as second:
        with refused(LoginStatus.OUT_OF_RESOURCES):
            served.log_in("iqn.2026-11.com.example:third")
        with served.log_in(target=OTHER), refused(LoginStatus.TOO_MANY_CONNECTIONS):
            served.log_in(target=OTHER)
        assert first.ping() < 5
        assert second.ping() < 5
    with served.log_in(), served.log_in():
        pass


def test_a_silent_peer_is_dropped_and_too_many_at_a_portal_are_not_taken(serve):
    served = serve("[limits]\nlogin_timeout = 1\nconnections = 2\n" + target("d"))
    address = ("127.0.0.1", served.port)
    with socket.create_connection(address) as one, socket.create_connection(address) as two:
        time.sleep(0.2)
        with socket.create_connection(address) as three:
            three.settimeout(5)
            assert three.recv(1) == b""
        for silent in (one, two):
            silent.settimeout(5)
            assert silent.recv(1) == b""
    with served.log_in() as session:
        time.sleep(1.5)  # the limit is for logins
        assert session.ping() < 5


def test_a_peer_that_dribbles_is_dropped_as_well(serve):
    served = serve("[limits]\nlogin_timeout = 1\n" + target("d"))
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.settimeout(0.1)
        while time.monotonic() - started < 10:
            try:
                slow.sendall(b"\x43")
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert time.monotonic() - started < 5


# ---------------------------------------------------------------------- CHAP


def test_an_account_is_asked_for_where_the_list_says_so(serve):
    served = serve(target("d") + access(HOST, 'account = "alice"') + access(ME))
    with served.log_in(ME):
        pass
    with served.log_in(HOST, credentials=ALICE):
        pass
    with refused(LoginStatus.AUTHENTICATION_FAILURE):
        served.log_in(HOST)


# ---------------------------------------------------------------------- reload


def test_what_is_new_appears_and_sessions_hear_of_it(serve):
    served = serve(target("a"))
    with served.log_in() as session:
        greet(session, 0)
        served.reload(target("a", "b") + target("c", iqn=OTHER))
        assert attention(session, 0) is Asc.REPORTED_LUNS_DATA_HAS_CHANGED
        assert session.report_luns() == [0, 1]
        greet(session, 1)
        Disk(session.unit(1)).write(0, DATA_ARRIVES)
        with served.log_in(target=OTHER) as other:
            assert other.report_luns() == [0]
        assert attention(session, 0) is None


def test_a_unit_that_is_gone_is_gone_and_the_session_goes_on(serve):
    served = serve(target("a", "b"))
    with served.log_in() as session:
        greet(session, 0, 1)
        served.reload(target("a"))
        assert attention(session, 0) is Asc.REPORTED_LUNS_DATA_HAS_CHANGED
        assert session.report_luns() == [0]
        with pytest.raises(CheckCondition) as caught:
            Disk(session.unit(1)).read(0, 1)
        assert caught.value.sense.asc is Asc.LOGICAL_UNIT_NOT_SUPPORTED
        served.reload(target("a", "b"))
        assert session.report_luns() == [0, 1]
        greet(session, 1)
        assert Disk(session.unit(1)).read(0, 1)


def test_a_target_that_is_gone_takes_no_logins_and_may_come_back(serve):
    both = target("a") + target("b", iqn=OTHER)
    served = serve(both)
    with served.log_in() as session:
        greet(session, 0)
        served.reload(target("b", iqn=OTHER))
        with refused(LoginStatus.NOT_FOUND):
            served.log_in()
        Disk(session.unit(0)).write(0, DATA_ARRIVES)
        served.reload(both)
        with served.log_in() as again:
            greet(again, 0)
            assert bytes(Disk(again.unit(0)).read(0, 1)) == DATA_ARRIVES


def test_access_and_accounts_change_for_those_who_come_and_maps_for_those_who_are_there(serve):
    served = serve(target("a", "b"))
    with served.log_in() as session:
        greet(session, 0, 1)
        served.reload(
            target("a", "b", more='account = "alice"')
            + access(ME, 'luns = [{ lun = 4, unit = "b", read_only = true }]')
        )
        assert session.report_luns() == [4]
        assert attention(session, 4) in (None, Asc.REPORTED_LUNS_DATA_HAS_CHANGED)
        with pytest.raises(CheckCondition) as caught:
            Disk(session.unit(4)).write(0, DATA_ARRIVES)
        assert caught.value.sense.asc is Asc.WRITE_PROTECTED
        with refused(LoginStatus.AUTHENTICATION_FAILURE):
            served.log_in()
        with refused(LoginStatus.AUTHORIZATION_FAILURE):
            served.log_in(HOST, credentials=ALICE)
        with served.log_in(credentials=ALICE) as named:
            assert named.report_luns() == [4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (target("b", "a"), "unit b is at LUN 1 and cannot move to 0 while it is served"),
        (target("a", "b").replace('size = "1MiB"', "thin = true"), "unit a cannot change while"),
        (target("a", "b", "a"), "a name that no other unit of the target has"),
    ],
)
def test_what_cannot_change_is_said_and_changes_nothing(serve, text, said):
    served = serve(target("a", "b"))
    with served.log_in() as session:
        greet(session, 0, 1)
        with pytest.raises(ConfigError, match=said):
            served.reload(text)
        assert attention(session, 0) is None
        assert session.report_luns() == [0, 1]


def test_a_unit_that_cannot_be_opened_leaves_everything_as_it_was(serve, tmp_path):
    served = serve(target("a"))
    (tmp_path / "b.img").mkdir()
    with served.log_in() as session:
        greet(session, 0)
        with pytest.raises((OSError, ValueError)):
            served.reload(target("a", "c", "b") + target("d", iqn=OTHER))
        assert session.report_luns() == [0]
        with refused(LoginStatus.NOT_FOUND):
            served.log_in(target=OTHER)
        (tmp_path / "b.img").rmdir()
        served.reload(target("a", "c", "b") + target("d", iqn=OTHER))
        assert session.report_luns() == [0, 1, 2]


def test_portals_come_and_go_with_the_connections_through_them(serve):
    served = serve('[server]\nportals = ["127.0.0.1:0", "127.0.0.1:0,2"]\n' + target("a"))
    one, two = (address.port for address in served.addresses)
    with served.log_in(port=one) as first, served.log_in(port=two) as second:
        served.reload('[server]\nportals = ["127.0.0.1:0"]\n' + target("a"))
        with pytest.raises(SessionLost):
            second.ping()
        with pytest.raises(SessionLost):
            served.log_in(port=two)
        assert first.ping() < 5
        served.reload(f'[server]\nportals = ["127.0.0.1:0", "127.0.0.1:{two},2"]\n' + target("a"))
        with served.log_in(port=two) as again:
            assert again.report_luns() == [0]
        assert first.ping() < 5


def test_a_portal_that_cannot_be_had_changes_nothing(serve):
    served = serve(target("a"))
    with served.log_in() as session:
        taken = f'[server]\nportals = ["127.0.0.1:{served.port},7", "127.0.0.1:0"]\n'
        with pytest.raises(OSError, match="cannot listen"):
            served.reload(taken + target("a", "b"))
        assert session.report_luns() == [0]
        with served.log_in():
            pass


@pytest.mark.served
def test_the_process_reads_its_file_again_at_sighup(tmp_path):
    path = tmp_path / "served.toml"
    server = '[server]\nportals = ["127.0.0.1:0"]\n'
    path.write_text(server + target("a"))
    command = [*SERVERFREE, "target", "--config", str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            url, kind, name = process.stdout.readline().rstrip().split("\t")
            assert (kind, name) == ("disk", "a")
            assert process.stdout.readline() == "ready\n"
            port = int(url.split(":")[2].split("/")[0])
            with Session("127.0.0.1", port, STORAGE) as session:
                path.write_text(server + "nonsense = 1\n" + target("a", "b"))
                os.kill(process.pid, signal.SIGHUP)
                assert "nonsense: no such setting" in process.stderr.readline()
                assert session.report_luns() == [0]
                path.write_text(server + target("a", "b"))
                os.kill(process.pid, signal.SIGHUP)
                deadline = time.monotonic() + 10
                while session.report_luns() != [0, 1]:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        finally:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
