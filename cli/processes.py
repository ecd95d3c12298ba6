"""Our servers as processes of their own: started, waited for, stopped by their process id."""

import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

# The command of this very installation. -P: the working directory is no place to import from (it
# may be the checkout).
SERVERFREE = [sys.executable, "-P", "-m", "serverfree.cli.main"]
START_TIMEOUT = 20.0
STOP_TIMEOUT = 20.0
LOG_TAIL = 4000


class ServerError(Exception):
    """A server did not start, or did not stop in time; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Served:
    """One logical unit as the server's ready lines name it."""

    url: str
    kind: str
    name: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 3260

    @property
    def target_name(self) -> str:
        return urlsplit(self.url).path.split("/")[1]

    @property
    def lun(self) -> int:
        return int(urlsplit(self.url).path.split("/")[2])


class Server:
    """`serverfree VERB` on a portal of its own, as a context manager.

    Port 0 in `portal` picks a free one; `start` after `stop` or `kill` takes the same one again, so
    that clients find the server where it was.
    """

    def __init__(self, verb: str, arguments: Sequence[object], portal: str = "127.0.0.1:0") -> None:
        self.verb = verb
        self.arguments = [str(argument) for argument in arguments]
        self.portal = portal
        self.units: dict[str, Served] = {}
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()

    def __getitem__(self, name: str) -> Served:
        """Return the unit of that name."""
        return self.units[name]

    @property
    def pid(self) -> int:
        """Return the id of the running process."""
        if self._process is None:
            raise ServerError(f"serverfree {self.verb} is not running")
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port of the portal."""
        host, _, port = self.portal.rpartition(":")
        return host, int(port)

    def alive(self) -> bool:
        """Return whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the process and wait until it says `ready`."""
        if self._log is not None:
            self._log.close()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (kept to be read after the end)
        self._process = subprocess.Popen(
            [*SERVERFREE, self.verb, "--portal", self.portal, *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self._read_until_ready(self._process)
        except BaseException:
            self.kill()
            raise
        first = next(iter(self.units.values()), None)
        if first is not None:
            self.portal = f"{self.portal.rpartition(':')[0]}:{first.port}"
        return self

    def stop(self) -> int:
        """Ask the process to end (SIGTERM), wait, and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a power failure would: it gets no chance to tidy up (SIGKILL)."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """Return the end of what the process wrote to its standard error."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read()[-LOG_TAIL:]

    def _read_until_ready(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # The thread goes on after `ready`: a process whose output no one reads would stall.
        threading.Thread(target=_drain, args=(process.stdout, lines), daemon=True).start()
        self.units = {}
        while True:
            try:
                line = lines.get(timeout=START_TIMEOUT)
            except queue.Empty:
                reason = f"was not ready after {START_TIMEOUT:.0f} s"
                raise ServerError(f"serverfree {self.verb} {reason}\n{self.log()}") from None
            if line is None:
                code = process.wait(STOP_TIMEOUT)
                raise ServerError(f"serverfree {self.verb} ended with {code}\n{self.log()}")
            if line == "ready":
                return
            url, kind, name = line.split("\t")
            self.units[name] = Served(url, kind, name)

    def _end(self, how: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(how)
        try:
            code = process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerError(
                f"serverfree {self.verb} did not end within {STOP_TIMEOUT:.0f} s of {how.name}\n"
                + self.log()
            ) from None
        finally:
            self._process = None
        return code


def _drain(stream: IO[str], lines: "queue.SimpleQueue[str | None]") -> None:
    with stream:
        for line in stream:
            lines.put(line.rstrip("\n"))
    lines.put(None)
