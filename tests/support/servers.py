"""Servers for tests: ours and tgt as processes on free loopback ports, and what they serve."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from serverfree.cli.processes import Server
from support import peers

MiB = 1 << 20


def random_file(path: Path, size: int) -> Path:
    """Make a file that no compression and no lucky zero can imitate."""
    with path.open("wb") as file:
        for offset in range(0, size, 4 * MiB):
            file.write(os.urandom(min(4 * MiB, size - offset)))
    return path


def empty_file(path: Path, size: int) -> Path:
    """Make a sparse file of zeros."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def target(*arguments: object, portal: str = "127.0.0.1:0") -> Server:
    """Return a `serverfree target`, not yet started."""
    return Server("target", arguments, portal)


def datamover(*reach: Server, portal: str = "127.0.0.1:0") -> Server:
    """Return a `serverfree datamover` that reaches the given servers, not yet started."""
    arguments: list[str] = []
    for server in reach:
        arguments += ["--reach", "{}:{}".format(*server.address)]
    return Server("datamover", arguments, portal)


def free_port() -> int:
    """Return a port that was free a moment ago (for peers that cannot pick one themselves)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Tgt:
    """tgt, the target that Linux distributions ship in user space, with one LUN per file.

    It numbers LUNs from 1 (0 is its controller) and ignores SIGTERM, so it is ended by SIGKILL.
    """

    NAME = "iqn.2026-11.com.example:tgt"

    def __init__(self, *paths: Path, options: tuple[str, ...] = ()) -> None:
        peers.require("tgtd", "tgtadm")
        self.paths = paths
        self.port = free_port()
        self._options = options
        self._control = tempfile.TemporaryDirectory(prefix="tgt-")
        self._environment = {**os.environ, "TGT_IPC_SOCKET": f"{self._control.name}/socket"}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, number: int = 0) -> str:
        """Return the URL of the LUN of the path at that place in the list."""
        return f"iscsi://127.0.0.1:{self.port}/{self.NAME}/{number + 1}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def allow_digests(self) -> None:
        """Have it take what the initiator wants; left alone, tgt takes None only."""
        update = ("--op", "update", "--mode", "target", "--tid", "1")
        for digest in ("HeaderDigest", "DataDigest"):
            assert self._admin(*update, "--name", digest, "--value", "None,CRC32C")

    def __enter__(self) -> Self:
        portal = f"portal=127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [str(peers.find("tgtd")), "-f", "--iscsi", portal, *self._options],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._configure()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _configure(self) -> None:
        new_target = ("--op", "new", "--mode", "target", "--tid", "1", "-T", self.NAME)
        deadline = time.monotonic() + 10
        while not self._admin(*new_target):
            if time.monotonic() > deadline:
                raise RuntimeError("tgtd does not answer tgtadm")
            time.sleep(0.05)
        for number, path in enumerate(self.paths, 1):
            lun = ("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", str(number))
            assert self._admin(*lun, "-b", str(path))
        assert self._admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def _admin(self, *arguments: str) -> bool:
        done = subprocess.run(
            [str(peers.find("tgtadm")), "--lld", "iscsi", *arguments],
            env=self._environment,
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def _end(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._control.cleanup()
