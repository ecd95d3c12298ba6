"""A TCP relay that counts the SCSI commands that pass by.

A client that falls back silently when an offload is refused leaves no other trace: what was asked
of the target is seen on the wire. The parser here is independent of `serverfree.iscsi`: 48 bytes,
two lengths, no digests.
"""

import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

BHS = 48
SCSI_COMMAND = 0x01
CHUNK = 1 << 18


class CommandCounter:
    """Fed with the bytes an initiator sends, counts its CDBs by operation code."""

    def __init__(self) -> None:
        self.commands: Counter[int] = Counter()
        self._pending = bytearray()
        self._to_skip = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, however they are cut."""
        data_left = memoryview(data)
        while data_left:
            if self._to_skip:
                skipped = min(self._to_skip, len(data_left))
                self._to_skip -= skipped
                data_left = data_left[skipped:]
                continue
            wanted = BHS - len(self._pending)
            self._pending += data_left[:wanted]
            data_left = data_left[wanted:]
            if len(self._pending) == BHS:
                self._header(bytes(self._pending))
                self._pending.clear()

    def _header(self, bhs: bytes) -> None:
        (lengths,) = struct.unpack_from(">I", bhs, 4)
        additional, data = lengths >> 24, lengths & 0xFFFFFF
        self._to_skip = additional * 4 + (data + 3) // 4 * 4
        if bhs[0] & 0x3F == SCSI_COMMAND:
            self.commands[bhs[32]] += 1


class Relay:
    """Listens on a free loopback port and passes everything on to `(host, port)`."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._counters: list[CommandCounter] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.bytes_to_target = 0
        self.bytes_to_initiator = 0
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def commands(self) -> Counter[int]:
        """Return how often each operation code passed by, over all connections."""
        return sum((counter.commands for counter in self._counters), Counter())

    def url(self, url: str) -> str:
        """Return `url` with this relay in place of the target's own host and port."""
        return f"iscsi://127.0.0.1:{self.port}/" + url.split("/", 3)[3]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # shutdown, not close alone: it wakes the thread that blocks in accept or recv.
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, run, *arguments) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
            except OSError:
                return
            counter = CommandCounter()
            self._counters.append(counter)
            self._sockets += (client, server)
            self._start(self._outwards, client, server, counter)
            self._start(self._inwards, server, client)

    def _outwards(
        self, client: socket.socket, server: socket.socket, counter: CommandCounter
    ) -> None:
        for data in _received(client):
            counter.feed(data)
            self.bytes_to_target += len(data)
            server.sendall(data)
        _half_close(server)

    def _inwards(self, server: socket.socket, client: socket.socket) -> None:
        for data in _received(server):
            self.bytes_to_initiator += len(data)
            client.sendall(data)
        _half_close(client)


def _received(source: socket.socket):
    while True:
        try:
            data = source.recv(CHUNK)
        except OSError:
            return
        if not data:
            return
        yield data


def _half_close(destination: socket.socket) -> None:
    with suppress(OSError):
        destination.shutdown(socket.SHUT_WR)
