"""Our initiator against tgt, a target that no one here wrote."""

import os
import threading

import pytest

from serverfree.cli.main import main
from serverfree.initiator.discovery import discover
from serverfree.initiator.disk import Disk
from serverfree.initiator.pyscsi_device import pyscsi_device
from serverfree.initiator.session import Session
from serverfree.initiator.unit import describe
from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure
from serverfree.iscsi.negotiation import Offer
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Asc, SenseKey
from support import servers

pytestmark = pytest.mark.peer
MIB = 1 << 20


@pytest.fixture(scope="module")
def tgt(tmp_path_factory):
    path = servers.random_file(tmp_path_factory.mktemp("tgt") / "disk.img", 32 * MIB)
    with servers.Tgt(path) as server:
        yield server


@pytest.fixture
def session(tgt):
    with Session("127.0.0.1", tgt.port, tgt.NAME) as session:
        yield session


def test_discovery(tgt):
    [target] = discover("127.0.0.1", tgt.port)
    assert target.name == tgt.NAME
    assert [portal.port for portal in target.portals] == [tgt.port]


def test_units_and_their_names(session):
    assert session.report_luns() == [0, 1]
    disk = Disk(session.unit(1))
    assert describe(disk.inquiry()) == "a disk (IET VIRTUAL-DISK)"
    assert disk.capacity().size == 32 * MIB
    assert 0x83 in disk.vpd_pages()
    assert disk.identification().designators


@pytest.mark.parametrize(
    "offer",
    [
        Offer(),
        Offer(initial_r2t=True, immediate_data=False),
        Offer(first_burst_length=512, max_burst_length=4096, max_outstanding_r2t=1),
        Offer(max_recv_data_segment_length=512),
    ],
)
def test_what_is_written_is_read_back_however_it_was_negotiated(tgt, offer):
    with Session("127.0.0.1", tgt.port, tgt.NAME, offer=offer) as session:
        disk = Disk(session.unit(1))
        data = os.urandom(3 * MIB)
        disk.write(17, data)
        disk.flush()
        assert disk.read(17, len(data) // 512) == data
    assert tgt.paths[0].read_bytes()[17 * 512 : 17 * 512 + len(data)] == data


def test_several_threads_on_one_session(tgt, session):
    wrong = []

    def work(number):
        disk = Disk(session.unit(1))
        data = os.urandom(MIB)
        for _ in range(4):
            disk.write(number * 4096, data)
            if disk.read(number * 4096, MIB // 512) != data:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_errors_come_with_their_sense(session):
    disk = Disk(session.unit(1))
    with pytest.raises(CheckCondition) as caught:
        disk.read(32 * MIB // 512, 1)
    assert caught.value.sense.key is SenseKey.ILLEGAL_REQUEST
    assert caught.value.sense.asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE


def test_an_unknown_target_is_not_found(tgt):
    with pytest.raises(LoginFailure) as caught:
        Session("127.0.0.1", tgt.port, "iqn.2026-11.com.example:nothing")
    assert caught.value.status is LoginStatus.NOT_FOUND


def test_a_ping_and_a_unit_reset(session):
    assert session.ping() < 5
    session.reset_unit(1)
    assert Disk(session.unit(1)).read(0, 1)


def test_a_target_without_a_copy_manager_is_named(tgt, capfd):
    url = tgt.url()
    assert main(["xcopy", "--mover", url, url, url, "--count", "1"]) == 1
    assert capfd.readouterr().err == f"serverfree xcopy: {url} has no copy manager\n"


def test_pyscsi_commands_run_over_our_session(session):
    """pyscsi's own command classes, data and sense on our transport."""
    from pyscsi.pyscsi.scsi import SCSI

    device = pyscsi_device(session.unit(1))
    with pytest.raises(device.CheckCondition, match="POWER ON"):
        SCSI(device, 512).testunitready()
    scsi = SCSI(device, 512)
    scsi.testunitready()
    assert scsi.readcapacity10().result["returned_lba"] == 32 * MIB // 512 - 1
    data = os.urandom(512)
    scsi.write10(9, 1, data)
    assert scsi.read10(9, 1).datain == data
