"""Bytes changed between target and initiator: with digests it is noticed and said, both ways."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from serverfree.initiator.disk import Disk
from serverfree.initiator.session import Session
from serverfree.iscsi.errors import SessionLost
from serverfree.iscsi.names import Portal
from serverfree.iscsi.negotiation import Offer
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import SenseKey
from serverfree.target.backstore.file import open_file_store
from serverfree.target.server import Server
from serverfree.target.session import Target
from serverfree.target.units.block import BlockUnit

NAME = "iqn.2026-11.com.example:damaged"
DIGESTS = Offer(header_digest=("CRC32C",), data_digest=("CRC32C",))


class DamagingRelay:
    """Passes everything on; once armed it flips a bit of the next large piece going that way."""

    def __init__(self, port: int) -> None:
        self.armed: str | None = None
        self.hits = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._upstream = port
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._sockets += [client, server]
                for way in (("out", client, server), ("in", server, client)):
                    threading.Thread(target=self._pass, args=way, daemon=True).start()

    def _pass(self, way: str, source: socket.socket, destination: socket.socket) -> None:
        with suppress(OSError):
            while data := bytearray(source.recv(1 << 16)):
                if self.armed == way and len(data) > 1000:
                    data[len(data) // 2] ^= 0x10
                    self.armed = None
                    self.hits += 1
                destination.sendall(data)
        for each in (source, destination):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *self._sockets):
            each.close()


@pytest.fixture
def relay(tmp_path) -> Iterator[DamagingRelay]:
    disk = BlockUnit("d", open_file_store(tmp_path / "d.img", 1 << 20), target=NAME)
    server = Server([Target(NAME, [disk])], [Portal("127.0.0.1", 0)])
    made = DamagingRelay(server.start()[0].port)
    yield made
    made.close()
    server.stop()


def test_damaged_reads_end_the_session_and_say_so(relay):
    data = os.urandom(64 * 512)
    with Session("127.0.0.1", relay.port, NAME, offer=DIGESTS) as session:
        disk = Disk(session.unit(0))
        disk.write(0, data)
        assert bytes(disk.read(0, 64)) == data
        relay.armed = "in"
        with pytest.raises(SessionLost, match="damaged on its way: wrong data digest"):
            disk.read(0, 64)
    assert relay.hits == 1
    with Session("127.0.0.1", relay.port, NAME, offer=DIGESTS) as session:
        assert bytes(Disk(session.unit(0)).read(0, 64)) == data


def test_damaged_writes_are_refused_and_leave_what_was_there(relay):
    before, after = os.urandom(64 * 512), os.urandom(64 * 512)
    with Session("127.0.0.1", relay.port, NAME, offer=DIGESTS) as session:
        disk = Disk(session.unit(0))
        disk.write(0, before)
        relay.armed = "out"
        # At ErrorRecoveryLevel 0 the target ends the session (immediate data) or the command.
        with pytest.raises((SessionLost, CheckCondition)) as caught:
            disk.write(0, after)
        if isinstance(caught.value, CheckCondition):
            assert caught.value.sense.key is SenseKey.ABORTED_COMMAND
    assert relay.hits == 1
    with Session("127.0.0.1", relay.port, NAME) as session:
        assert bytes(Disk(session.unit(0)).read(0, 64)) == before


def test_without_digests_nobody_notices(relay):
    """What the two tests above are worth: the same damage passes for data."""
    data = os.urandom(64 * 512)
    with Session("127.0.0.1", relay.port, NAME) as session:
        disk = Disk(session.unit(0))
        disk.write(0, data)
        relay.armed = "in"
        assert bytes(disk.read(0, 64)) != data
    assert relay.hits == 1
