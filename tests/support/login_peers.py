"""Targets that no one here wrote, asking who comes: tgt with accounts, and istgt."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from serverfree.iscsi.chap import Credentials
from support import peers
from support.servers import Tgt, free_port

ALICE = Credentials("alice", b"opensesame-alice")
STORE = Credentials("store", b"the-target-proof")  # 16 bytes: istgt takes no longer ones


class AskingTgt(Tgt):
    """tgt that lets ALICE in and proves itself as STORE."""

    def _configure(self) -> None:
        super()._configure()
        for account in (ALICE, STORE):
            new = ("--op", "new", "--mode", "account", "--user", account.name)
            assert self._admin(*new, "--password", account.secret.decode())
        bind = ("--op", "bind", "--mode", "account", "--tid", "1", "--user")
        assert self._admin(*bind, ALICE.name)
        assert self._admin(*bind, STORE.name, "--outgoing")
        self.allow_digests()


_ISTGT = """
[Global]
  NodeBase "iqn.2026-11.com.example"
  PidFile {folder}/istgt.pid
  AuthFile {folder}/auth.conf
  MediaDirectory {folder}
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod {discovery}
  DiscoveryAuthGroup AuthGroup1
  MaxSessions 16
  MaxConnections 4
  MaxR2T 32
  MaxOutstandingR2T 16
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  ErrorRecoveryLevel 0
[UnitControl]
  AuthMethod CHAP Mutual
  AuthGroup AuthGroup1
  Portal UC1 127.0.0.1:{control}
  Netmask 127.0.0.1
[PortalGroup1]
  Portal DA1 127.0.0.1:{port}
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
[LogicalUnit1]
  TargetName istgt
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod {method}
  AuthGroup AuthGroup1
  UseDigest {digest}
  UnitType Disk
  QueueDepth 32
  LUN0 Storage {path} Auto
"""


class Istgt:
    """istgt over one file: with CHAP asked of whoever comes, or not.

    `method` and `digest` are its AuthMethod and UseDigest.
    """

    NAME = "iqn.2026-11.com.example:istgt"

    def __init__(self, path: Path, *, method: str = "CHAP", digest: str = "Auto") -> None:
        peers.require("istgt")
        self.path = path
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="istgt-")
        folder = Path(self._folder.name)
        (folder / "auth.conf").write_text(
            "[AuthGroup1]\n  Auth"
            + "".join(f' "{one.name}" "{one.secret.decode()}"' for one in (ALICE, STORE))
            + "\n"
        )
        (folder / "auth.conf").chmod(0o600)
        (folder / "istgt.conf").write_text(
            _ISTGT.format(
                folder=folder,
                port=self.port,
                control=free_port(),
                path=path,
                method=method,
                discovery="CHAP" if method != "None" else "None",
                digest=digest,
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [str(peers.find("istgt")), "-D", "-q", "-c", f"{self._folder.name}/istgt.conf"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self._end()
                raise RuntimeError("istgt does not come up")
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _end(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()
