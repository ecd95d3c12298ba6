"""Many connections at once, many one after the other: nothing is left, nobody else notices."""

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from support import servers
from support.process import footprint, settles
from support.wire import WireClient

pytestmark = pytest.mark.served

KiB, MiB = 1 << 10, 1 << 20
AT_ONCE = 255  # and one that verifies
NAME = "iqn.2026-11.com.example:crowd"


@pytest.fixture
def storage(tmp_path) -> Iterator[servers.Server]:
    with servers.target("--disk", f"disk={tmp_path / 'disk.img'},size=64MiB") as server:
        yield server


def write_and_read(client: WireClient, lba: int) -> None:
    data = os.urandom(64 * KiB)
    where = struct.pack(">IBHB", lba, 0, len(data) // 512, 0)
    assert client.command(b"\x2a\0" + where, data_out=data).status == 0
    read = client.command(b"\x28\0" + where, data_in=len(data))
    assert (read.status, read.data == data) == (0, True)


def log_in(storage: servers.Server, name: str = NAME) -> WireClient:
    client = WireClient(storage.address, storage["disk"].target_name, name)
    client.command(bytes(6))  # takes the power-on unit attention
    return client


@pytest.mark.timeout(120)
def test_256_connections_at_once(storage):
    with log_in(storage, "iqn.2026-11.com.example:verifier") as verifier:
        write_and_read(verifier, 0)
        before = footprint(storage.pid)
        crowd = [log_in(storage) for _ in range(AT_ONCE)]
        for number, client in enumerate(crowd):
            write_and_read(client, 128 * (1 + number % 100))
        full = footprint(storage.pid)
        assert full.threads >= AT_ONCE
        # Of a connection's receive buffer only what it has used is memory: some 70 KiB here.
        assert full.memory - before.memory < AT_ONCE * 256 * KiB
        write_and_read(verifier, 0)
        for number, client in enumerate(crowd):
            if number % 2:
                client.logout()
            client.socket.close()
        write_and_read(verifier, 0)
        assert settles(lambda: footprint(storage.pid).threads <= before.threads)
        assert settles(lambda: footprint(storage.pid).files <= before.files)
        assert footprint(storage.pid).memory - before.memory < 16 * MiB


def come_and_go(storage: servers.Server, count: int) -> None:
    with log_in(storage, "iqn.2026-11.com.example:verifier") as verifier:
        for _ in range(50):
            with log_in(storage) as client:
                client.logout()
        assert settles(lambda: footprint(storage.pid).threads <= 6)
        before = footprint(storage.pid)
        for number in range(count):
            with log_in(storage) as client:
                if number % 10 == 0:
                    write_and_read(client, 128 + number % 1000)
                if number % 7:
                    client.logout()
                elif number % 2:  # leaves without a word, or with a reset
                    linger = struct.pack("ii", 1, 0)
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if number % 100 == 0:
                write_and_read(verifier, 0)
        assert settles(lambda: footprint(storage.pid).threads <= before.threads)
        assert settles(lambda: footprint(storage.pid).files <= before.files)
        # Less than 200 bytes a cycle, whatever the allocator keeps.
        assert footprint(storage.pid).memory - before.memory < 4 * MiB + 200 * count
        write_and_read(verifier, 0)
    assert "Traceback" not in storage.log()


@pytest.mark.timeout(120)
def test_500_logins_one_after_the_other(storage):
    come_and_go(storage, 500)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_10000_logins_one_after_the_other(storage):
    come_and_go(storage, 10_000)
