"""The limit of any data mover on this machine: source, relay and sink processes, no protocol.

The source sends a file, the relay passes on what it receives, the sink writes a file and flushes
it. Two sockets over loopback, buffers of 1 MiB, nothing looks at the data.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

BUFFER = 1 << 20


class RawRelay:
    """The three processes, running until the context ends; `copy` may be called again."""

    def __init__(self, source: Path, destination: Path) -> None:
        self._arguments = {"source": (source,), "sink": (destination,), "relay": ()}
        self._processes: list[subprocess.Popen[str]] = []
        self._ports: list[str] = []

    def __enter__(self) -> Self:
        for role in ("source", "sink"):
            self._ports.append(self._start(role, *self._arguments[role]))
        self._start("relay", *self._ports)
        return self

    def _start(self, role: str, *arguments: object) -> str:
        process = subprocess.Popen(
            [sys.executable, __file__, role, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def copy(self) -> None:
        """Have the whole file passed on once; returns when the sink has flushed it."""
        relay = self._processes[-1]
        assert relay.stdin is not None
        assert relay.stdout is not None
        print("go", file=relay.stdin, flush=True)
        if relay.stdout.readline() != "done\n":
            raise RuntimeError("the relay has ended")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.terminate()
            process.communicate()


def _listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    return listener


def _source(path: str) -> None:
    listener = _listen()
    with Path(path).open("rb") as file:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendfile(file, 0)


def _sink(path: str) -> None:
    listener = _listen()
    buffer = memoryview(bytearray(BUFFER))
    while True:
        connection, _ = listener.accept()
        with connection, Path(path).open("r+b", buffering=0) as file:
            while received := connection.recv_into(buffer):
                file.write(buffer[:received])
            os.fsync(file.fileno())
            connection.sendall(b"!")


def _relay(source: str, sink: str) -> None:
    print("ready", flush=True)
    buffer = memoryview(bytearray(BUFFER))
    for _ in sys.stdin:
        with (
            socket.create_connection(("127.0.0.1", int(source))) as inward,
            socket.create_connection(("127.0.0.1", int(sink))) as outward,
        ):
            while received := inward.recv_into(buffer):
                outward.sendall(buffer[:received])
            outward.shutdown(socket.SHUT_WR)
            outward.recv(1)
        print("done", flush=True)


if __name__ == "__main__":
    {"source": _source, "sink": _sink, "relay": _relay}[sys.argv[1]](*sys.argv[2:])
