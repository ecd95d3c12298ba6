"""The guest as a process: QEMU booted on a cached image, and the channel to the agent in it.

TCG only: it is the one accelerator that works on every host, containers and CI included (KVM hangs
on some). The image is opened with snapshot=on, so whatever the guest writes ends with it. User
networking without a default route in the guest: it reaches 10.0.2.2, which is the host's loopback.
"""

import base64
import contextlib
import json
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from image import Image, boot_ramdisk

GATEWAY = "10.0.2.2"  # the host's loopback as the guest sees it
GUEST_ADDRESS = "10.0.2.15"
LIO_PORT = 3260  # of the guest, always forwarded from a free port of the host's loopback
BOOT_TIMEOUT = 240.0
GRACE = 45.0  # for the guest to tell that a scenario timed out, and to clean up


class MachineError(Exception):
    """The guest did not boot, or no longer answers. The text has the end of its console."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the host's side says to a scenario's `host ...`."""

    status: int
    stdout: bytes = b""
    stderr: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a scenario ended in the guest. `clean`: the guest is as it was before."""

    status: int
    timed_out: bool
    clean: bool


Say = Callable[[str], None]
Respond = Callable[[list[str]], Answer]


class Machine:
    """A booted guest, as a context manager. Its process never outlives the one that made it.

    `packages` are the versions of what is installed, with the running kernel as `kernel`.
    """

    def __init__(self, image: Image, memory_mib: int = 1024) -> None:
        self._image = image
        self._memory_mib = memory_mib
        self._folder = tempfile.TemporaryDirectory(prefix="vm-testbed-")
        self._console = Path(self._folder.name) / "console.log"
        self._send_lock = threading.Lock()
        self._received = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self.lio_port = 0
        self.packages: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        name: str,
        script: str,
        env: Mapping[str, str],
        timeout: int,
        say: Say,
        respond: Respond,
    ) -> Ended:
        """Run one script in the guest; hand its lines to `say`, its questions to `respond`.

        Raises MachineError if the guest itself stops answering.
        """
        self._send({"run": script, "name": name, "env": dict(env), "timeout": timeout})
        deadline = time.monotonic() + timeout + GRACE
        while True:
            message = self._receive(deadline)
            if "out" in message:
                say(message["out"])
            elif "ask" in message:
                # On a thread: what else the scenario prints meanwhile is shown as it comes.
                threading.Thread(target=self._respond, args=(message, respond), daemon=True).start()
            elif "exit" in message:
                return Ended(message["exit"], message["timed_out"], message["clean"])

    def console(self) -> str:
        """The end of what the guest's kernel printed."""
        with contextlib.suppress(OSError):
            return self._console.read_text(errors="replace")[-4000:]
        return ""

    def close(self) -> None:
        """End the guest. There is nothing to save: its disk is a snapshot."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._folder.cleanup()

    def _boot(self) -> None:
        ours, theirs = socket.socketpair()
        self._channel = ours
        with theirs:
            self.lio_port = _free_port()
            self._process = subprocess.Popen(
                self._command(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(Path(self._folder.name) / "qemu.log").open("wb"),
                # Out of the terminal's group: Ctrl-C is ours to handle, in order.
                process_group=0,
            )
        ready = self._receive(time.monotonic() + BOOT_TIMEOUT)["ready"]
        self.packages = {**ready["packages"], "kernel": ready["kernel"]}

    def _command(self, channel_fd: int) -> list[str]:
        ramdisk = boot_ramdisk(self._image, Path(self._folder.name))
        forward = f"hostfwd=tcp:127.0.0.1:{self.lio_port}-{GUEST_ADDRESS}:{LIO_PORT}"
        return [
            "setpriv", "--pdeathsig", "KILL",  # even a killed test run leaves no guest behind
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot",
            "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off,svm=off",
            "-smp", "2", "-m", f"{self._memory_mib}M", "-display", "none", "-vga", "none",
            "-kernel", str(self._image.kernel), "-initrd", str(ramdisk),
            "-append", "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off",
            "-serial", f"file:{self._console}",
            "-drive", f"file={self._image.root},format=raw,if=virtio,snapshot=on,cache=unsafe",
            "-netdev", f"user,id=net,ipv6=off,{forward}",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=channel,fd={channel_fd}",
            "-device", "virtserialport,chardev=channel,name=testbed",
        ]  # fmt: skip

    def _respond(self, message: dict[str, Any], respond: Respond) -> None:
        try:
            answer = respond(message["argv"])
        except Exception as error:
            # The scenario is told and fails by it; nothing else can be done about it here.
            answer = Answer(70, stderr=f"{type(error).__name__}: {error}\n")
        self._send(
            {
                "reply": message["ask"],
                "status": answer.status,
                "stdout": base64.b64encode(answer.stdout).decode(),
                "stderr": answer.stderr,
            }
        )

    def _send(self, message: Mapping[str, object]) -> None:
        channel = self._channel
        if channel is None:
            return  # an answer that comes after the end
        with self._send_lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            channel.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._channel is not None
        while (end := self._received.find(b"\n")) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._channel], [], [], left)[0]:
                raise MachineError(f"the guest does not answer\n{self.console()}")
            try:
                data = self._channel.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise MachineError(f"the guest has ended\n{self._qemu_log()}{self.console()}")
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        message: dict[str, Any] = json.loads(line)
        return message

    def _qemu_log(self) -> str:
        with contextlib.suppress(OSError):
            return (Path(self._folder.name) / "qemu.log").read_text(errors="replace")
        return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
