"""ACA (SAM-5 5.9): who may do what between an error with NACA=1 and CLEAR ACA.

CDBs and statuses are bytes from the clauses.
"""

from collections.abc import Iterator

import pytest

from serverfree.scsi.sense import Asc
from serverfree.target.server import Server
from serverfree.target.units.command import Command
from serverfree.target.units.missing import MissingUnit
from support.disk import NEXUS, OTHER, Host, make_disk
from support.portal import DETACHED, QUEUED, SHORT, Client, PatientUnit, serving

GOOD, CHECK_CONDITION, BUSY, ACA_ACTIVE = 0x00, 0x02, 0x08, 0x30
READY, READY_NACA = bytes(6), bytes(5) + b"\x04"
WRONG_NACA = bytes.fromhex("12 01 ff 00 ff 04")  # INQUIRY for a page that there is not
WRONG = bytes.fromhex("12 01 ff 00 ff 00")
INQUIRY = bytes.fromhex("12 00 00 00 24 00")


@pytest.fixture
def host(tmp_path) -> Iterator[Host]:
    unit = make_disk(tmp_path / "disk.img")
    yield Host(unit)
    unit.close()


@pytest.fixture
def other(host) -> Host:
    return Host(host.unit, OTHER)


def with_attribute(host: Host, cdb: bytes) -> int:
    """Run a command with the ACA task attribute."""
    return host.unit.execute(Command(host.nexus, cdb.ljust(16, b"\0"), aca=True)).status


def test_normaca_is_told(host):
    assert host.good(INQUIRY)[3] == 0x32  # NORMACA, HISUP, format 2


def test_an_error_without_naca_establishes_nothing(host):
    assert host(WRONG).status == CHECK_CONDITION
    host.good(READY)


def test_a_command_with_naca_that_ends_well_establishes_nothing(host):
    host.good(READY_NACA)
    host.good(READY)


def test_after_an_error_the_faulted_nexus_is_told_aca_active(host):
    assert host(WRONG_NACA).status == CHECK_CONDITION
    for cdb in (READY, READY_NACA, WRONG_NACA, INQUIRY):
        reply = host(cdb)
        assert (reply.status, bytes(reply.data), reply.sense) == (ACA_ACTIVE, b"", None)


def test_others_are_told_busy_or_with_naca_aca_active(host, other):
    host(WRONG_NACA)
    assert [other(cdb).status for cdb in (READY, READY_NACA)] == [BUSY, ACA_ACTIVE]


def test_only_the_faulted_nexus_can_clear_it(host, other):
    host(WRONG_NACA)
    host.unit.clear_allegiance(OTHER)
    assert host(READY).status == ACA_ACTIVE
    host.unit.clear_allegiance(NEXUS)
    host.good(READY)
    other.good(READY)


def test_a_command_with_the_aca_attribute_runs(host):
    host(WRONG_NACA)
    assert with_attribute(host, READY) == GOOD
    assert host(READY).status == ACA_ACTIVE


def test_one_with_the_attribute_that_fails_ends_it_or_with_naca_replaces_it(host):
    host(WRONG_NACA)
    assert with_attribute(host, WRONG_NACA) == CHECK_CONDITION
    assert host(READY).status == ACA_ACTIVE
    assert with_attribute(host, WRONG) == CHECK_CONDITION
    host.good(READY)


def test_what_does_not_run_is_not_told_its_unit_attention_either(host):
    host.unit.attentions.attach(NEXUS)
    assert host(READY_NACA).sense.asc is Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED
    host.unit.raise_attention(Asc.MODE_PARAMETERS_CHANGED)
    assert host(READY).status == ACA_ACTIVE
    host.unit.clear_allegiance(NEXUS)
    assert host(READY).sense.asc is Asc.MODE_PARAMETERS_CHANGED


@pytest.mark.parametrize("end", [lambda unit: unit.reset(), lambda unit: unit.detach(NEXUS)])
def test_a_reset_or_the_loss_of_the_nexus_ends_it(host, other, end):
    host(WRONG_NACA)
    end(host.unit)
    assert other(READY).status == GOOD


def test_preempt_and_abort_of_the_faulted_nexus_ends_it(host, other):
    def reserve(who: Host, action: int, key: int, new: int) -> int:
        cdb = bytes((0x5F, action, 0x03)) + bytes(5) + b"\x18\0"  # exclusive access
        return who(cdb, key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes(8)).status

    for who in (host, other):
        who.unit.attach(who.nexus)
        who(READY)
    assert reserve(host, 0, 0, 1) == reserve(other, 0, 0, 2) == GOOD
    host(WRONG_NACA)
    assert reserve(other, 4, 2, 1) == BUSY  # PREEMPT alone has to wait
    assert reserve(other, 5, 2, 1) == GOOD
    assert host.unit.faulted is None


def test_a_unit_that_is_missing_has_no_allegiance():
    """Of one that is not there nobody is faulted (SAM-5 5.9.1)."""
    missing = Host(MissingUnit())
    assert missing(WRONG_NACA).status == CHECK_CONDITION
    assert missing(INQUIRY).status == GOOD


class TestOverTheWire:
    @pytest.fixture
    def unit(self) -> PatientUnit:
        return PatientUnit("first")

    @pytest.fixture
    def server(self, unit) -> Iterator[Server]:
        with serving((unit, PatientUnit("second"))) as server:
            yield server

    def test_commands_sent_behind_the_one_that_fails_do_not_run(self, server, unit):
        with Client(server) as client:
            client.attentions()
            failing = client.start(0xFF)  # no such operation code, and no NACA
            assert client.answer(failing).status == CHECK_CONDITION
            wrong = client.command(WRONG_NACA, data_in=255)
            assert wrong.status == CHECK_CONDITION
            tags = [client.start(opcode, 1) for opcode in (SHORT, QUEUED, DETACHED)]
            assert [client.answer(tag).status for tag in tags] == [ACA_ACTIVE] * 3
            assert not unit.begun
            attributed = client.start(0x00, attribute=4)
            assert client.answer(attributed).status == GOOD
            cleared = client.answer(client.manage(3))
            assert cleared.response == 0
            assert client.answer(client.start(0x00)).status == GOOD

    def test_the_attribute_without_a_condition_is_refused(self, server):
        with Client(server) as client:
            client.attentions()
            answer = client.answer(client.start(0x00, attribute=4))
            assert answer.status == CHECK_CONDITION
