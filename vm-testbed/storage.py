"""The host's side of a scenario: our servers, the files beneath them, and the words of `host`.

Every target is a process of its own, reached by the guest at 10.0.2.2. What a scenario may ask:

    host serverfree ARG...         our own command line, run on the host; its catalog is the
                                   scenario's, its array the target that has the API
    host url TARGET UNIT           a unit's URL as seen from the host (for `host serverfree`)
    host mover-url                 the copy manager's
    host lio-url LUN               a LUN of the guest's LIO, as seen from the host
    host sha256 UNIT [SKIP COUNT]  of a disk's file (bytes)
    host allocated UNIT            bytes that a disk's file takes up on the host
    host grow UNIT BYTES           make a disk's file longer while it is served
    host restart TARGET            clean stop, then start at the same portal
    host kill TARGET               SIGKILL, then start at the same portal
    host configure TARGET LINE...  serve what these lines of TOML say: a restart with --config the
                                   first time, SIGHUP from then on; paths are unit names
    host secret NAME TEXT          a secret file for it
    host port                      a free port, for a portal of it
    host save NAME                 a scratch file's path on the host, for --out and FILE arguments
"""

import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from machine import GATEWAY, Answer
from scenario import Scenario, TargetWish, UnitWish

from serverfree.cli.processes import Server

LIO_NAME = "iqn.2003-01.org.linux-iscsi.guest:lio"
OURS = ("fill", "like")  # unit options that are not for `serverfree target`
COMMAND_TIMEOUT = 300
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30


class Storage:
    """All that a scenario wants served, as a context manager. `env` goes into the guest."""

    def __init__(self, scenario: Scenario, lio_port: int = 0) -> None:
        self._scenario = scenario
        self._lio_port = lio_port
        self._stack = ExitStack()
        self._disks: dict[str, Path] = {}
        self._targets: dict[str, Server] = {}
        self._mover: Server | None = None
        self._array: str | None = None
        self.env: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._folder = Path(
                self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vm-storage-"))
            )
            os.environ["SERVERFREE_TOKEN"] = secrets.token_urlsafe()  # known to both ends
            for wish in self._scenario.targets:
                self._start_target(wish)
            if self._scenario.mover:
                self._start_mover()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def logs(self) -> Iterator[str]:
        """What our servers wrote to their standard error, line by line."""
        movers = {"mover": self._mover} if self._mover else {}
        for name, server in {**self._targets, **movers}.items():
            for line in server.log().splitlines():
                yield f"{name}: {line}"

    def respond(self, argv: list[str]) -> Answer:
        """Answer one `host WORD ARG...` of the scenario."""
        words: dict[str, Callable[..., Answer]] = {
            "serverfree": self._serverfree,
            "url": lambda target, unit: _text(self._targets[target][unit].url),
            "mover-url": lambda: _text(self._mover_url()),
            "lio-url": lambda lun: _text(f"iscsi://127.0.0.1:{self._lio_port}/{LIO_NAME}/{lun}"),
            "sha256": self._sha256,
            "allocated": lambda unit: _text(str(self._disks[unit].stat().st_blocks * 512)),
            "grow": self._grow,
            "restart": self._restart,
            "kill": self._kill,
            "configure": self._configure,
            "secret": self._secret,
            "port": lambda: _text(str(_free_port())),
            "save": lambda name: _text(str(self._folder / Path(name).name)),
        }
        if not argv or argv[0] not in words:
            return Answer(2, stderr=f"host: no word {argv[:1]}; there are {', '.join(words)}\n")
        return words[argv[0]](*argv[1:])

    def _grow(self, unit: str, size: str) -> Answer:
        with self._disks[unit].open("r+b") as file:
            file.truncate(int(size))
        return _text(size)

    def _start_target(self, wish: TargetWish) -> None:
        portal = f"127.0.0.1:{_free_port()}"
        name = f"iqn.2026-11.com.example:{wish.name}"
        arguments: list[object] = ["--iqn", name]
        for unit in wish.units:
            arguments += [f"--{unit.kind}", self._unit_argument(unit)]
        seen_by_guest = f"{GATEWAY}:{portal.rpartition(':')[2]}"
        if wish.advertise:
            arguments += ["--advertise", seen_by_guest]
        if wish.api:
            management = f"127.0.0.1:{_free_port()}"  # the same one after a restart
            self._array = f"http://{management}"
            arguments += ["--api", management]
        server = self._stack.enter_context(Server("target", arguments, portal))
        self._targets[wish.name] = server
        self.env[f"PORTAL_{wish.name}"] = seen_by_guest
        self.env[f"IQN_{wish.name}"] = name
        for unit in wish.units:
            self.env[f"LUN_{wish.name}_{unit.name}"] = str(server[unit.name].lun)

    def _unit_argument(self, unit: UnitWish) -> str:
        path = self._folder / unit.name
        if unit.kind == "disk":
            self._disks[unit.name] = path
            self._fill(path, unit.options)
        options = [
            f",{key}={value}" if value else f",{key}"
            for key, value in unit.options.items()
            if key not in OURS
        ]
        return f"{unit.name}={path}{''.join(options)}"

    def _fill(self, path: Path, options: dict[str, str]) -> None:
        if "like" in options:
            path.write_bytes(self._disks[options["like"]].read_bytes())
        elif options.get("fill") == "random":
            with path.open("wb") as file:
                for _ in range(_size(options["size"]) // MiB):
                    file.write(os.urandom(MiB))

    def _start_mover(self) -> None:
        arguments: list[object] = []
        for name in self._scenario.mover:
            address = (
                f"127.0.0.1:{self._lio_port}"
                if name == "guest"
                else "{}:{}".format(*self._targets[name].address)
            )
            arguments += ["--reach", address]
        self._mover = self._stack.enter_context(
            Server("datamover", arguments, f"127.0.0.1:{_free_port()}")
        )
        (unit,) = self._mover.units.values()
        self.env["PORTAL_mover"] = f"{GATEWAY}:{unit.port}"
        self.env["IQN_mover"] = unit.target_name
        self.env["LUN_mover_manager"] = str(unit.lun)

    def _mover_url(self) -> str:
        assert self._mover is not None
        (unit,) = self._mover.units.values()
        return unit.url

    def _serverfree(self, *argv: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "serverfree.cli.main", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={
                **os.environ,
                "XDG_DATA_HOME": str(self._folder / "data-home"),
                **({"SERVERFREE_ARRAY": self._array} if self._array else {}),
            },
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def _sha256(self, unit: str, skip: str = "0", count: str = "") -> Answer:
        with self._disks[unit].open("rb") as file:
            file.seek(int(skip))
            data = file.read(int(count) if count else -1)
        return _text(hashlib.sha256(data).hexdigest())

    def _restart(self, target: str) -> Answer:
        self._targets[target].stop()
        self._targets[target].start()
        return Answer(0)

    def _configure(self, target: str, *lines: str) -> Answer:
        server = self._targets[target]
        path = self._folder / f"{target}.toml"
        path.write_text("".join(f"{line}\n" for line in lines))
        if "--config" not in server.arguments:
            server.stop()
            server.arguments = ["--config", str(path), "--verbose"]
            server.start()
            return Answer(0)
        before = _last_reload(server)
        os.kill(server.pid, signal.SIGHUP)
        deadline = time.monotonic() + 10
        while _last_reload(server) == before:
            if time.monotonic() > deadline:
                return Answer(1, stderr=f"{target} was not reloaded\n")
            time.sleep(0.05)
        return Answer(0)

    def _secret(self, name: str, text: str) -> Answer:
        path = self._folder / Path(name).name
        path.touch(mode=0o600)
        path.write_text(f"{text}\n")
        return Answer(0)

    def _kill(self, target: str) -> Answer:
        self._targets[target].kill()
        self._targets[target].start()
        return Answer(0)


def _text(text: str) -> Answer:
    return Answer(0, f"{text}\n".encode())


def _last_reload(server: Server) -> str:
    """Return the line, with its time, by which a server says that it has read its file again."""
    lines = [line for line in server.log().splitlines() if line.endswith("reloaded")]
    return lines[-1] if lines else ""


def _size(text: str) -> int:
    for suffix, unit in (("KiB", KiB), ("MiB", MiB), ("GiB", GiB)):
        if text.endswith(suffix):
            return int(text.removesuffix(suffix)) * unit
    return int(text)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
