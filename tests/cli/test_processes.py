"""Servers as processes: found ready, found again after a crash, and never left running."""

import contextlib
import os
import socket

import pytest

from serverfree.cli.processes import Served, Server, ServerError
from support import servers
from support.process import footprint

MiB = 1 << 20


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("iscsi://127.0.0.1:4711/iqn.2026-11.com.example:storage/3", "127.0.0.1", 4711),
        ("iscsi://[::1]:4711/iqn.2026-11.com.example:storage/3", "::1", 4711),
        ("iscsi://host/iqn.2026-11.com.example:storage/3", "host", 3260),
    ],
)
def test_a_ready_line_is_taken_apart(url, host, port):
    unit = Served(url, "disk", "data")
    assert (unit.host, unit.port) == (host, port)
    assert (unit.target_name, unit.lun) == ("iqn.2026-11.com.example:storage", 3)


@pytest.fixture
def server(tmp_path):
    return servers.target(
        *("--disk", f"data={tmp_path / 'data.img'},size=1MiB"),
        *("--tape", f"tape={tmp_path / 'tape'},capacity=1MiB"),
    )


@pytest.mark.served
def test_units_are_named_in_the_order_given(server):
    with server:
        assert [(u.name, u.kind, u.lun) for u in server.units.values()] == [
            ("data", "disk", 0),
            ("tape", "tape", 1),
        ]
        assert server["data"].port == server.address[1] != 0


@pytest.mark.served
def test_an_idle_target_is_small(server):
    with server:
        assert footprint(server.pid).resident < 80 * MiB


@pytest.mark.served
def test_sigterm_is_a_clean_end(server):
    with server:
        pid = server.pid
        assert server.stop() == 0
    assert not running(pid)


@pytest.mark.served
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_it_is_found_again_where_it_was(server, how):
    with server:
        address = server.address
        getattr(server, how)()
        assert not server.alive()
        server.start()
        assert server.address == address
        socket.create_connection(address, timeout=5).close()


@pytest.mark.served
def test_an_exception_leaves_nothing_running(server):
    pids = []
    with contextlib.suppress(ZeroDivisionError), server:
        pids.append(server.pid)
        raise ZeroDivisionError
    assert len(pids) == 1
    assert not running(pids[0])


@pytest.mark.served
def test_a_server_that_cannot_start_says_why(tmp_path):
    missing = tmp_path / "missing.img"
    with pytest.raises(ServerError, match=r"(?s)ended with [12]\n.*missing\.img"):
        Server("target", ["--disk", f"data={missing}"]).start()
