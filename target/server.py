"""The server: portals that listen, the targets behind them, the connections that came in."""

import errno
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock, Thread

from serverfree.iscsi import text
from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure
from serverfree.iscsi.names import DiscoveredTarget, Portal, send_targets_pairs
from serverfree.target.connection import Connection
from serverfree.target.session import PORTAL_GROUP, Target

log = logging.getLogger(__name__)

BACKLOG = 128
MAX_CONNECTIONS = 1024
_WILDCARDS = ("0.0.0.0", "::")


@dataclass(slots=True, eq=False)
class Server:
    """Targets served at portals until `stop`.

    `advertise` is what SendTargets names instead of the portals' own addresses: for initiators
    that reach us through an address translation.
    """

    targets: Sequence[Target]
    portals: Sequence[Portal]
    advertise: Sequence[Portal] = ()
    _listeners: list[socket.socket] = field(default_factory=list)
    _threads: list[Thread] = field(default_factory=list)
    _connections: set[Connection] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)
    _stopping: bool = False

    def start(self) -> list[Portal]:
        """Listen at every portal and return the addresses, port 0 replaced by the one chosen.

        Raises OSError, with the portal in its text, if one cannot be had; then none is.
        """
        try:
            for portal in self.portals:
                self._listeners.append(_listen(portal))
        except OSError:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            raise
        for listener in self._listeners:
            thread = Thread(target=self._accept, args=(listener,), name="portal", daemon=True)
            thread.start()
            self._threads.append(thread)
        return [_address(listener.getsockname()) for listener in self._listeners]

    def stop(self) -> None:
        """Take no more, end every connection, put everything acknowledged on stable storage."""
        self._stopping = True
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        for thread in self._threads:
            thread.join()
        for listener in self._listeners:
            listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.drop()
        for target in self.targets:
            target.close()

    def find_target(self, name: str) -> Target:
        """Return the target of this name; LoginFailure NOT FOUND if there is none."""
        for target in self.targets:
            if target.name == name:
                return target
        raise LoginFailure(LoginStatus.NOT_FOUND, f"no target {name}")

    def send_targets(self, connection: Connection, which: str) -> bytes:
        """Answer SendTargets (RFC 7143 appendix C): `All`, a name, or "" for the session's own."""
        if which == "All":
            targets = list(self.targets)
        else:
            session = connection.session
            name = which or (session.target.name if session else "")
            targets = [target for target in self.targets if target.name == name]
        portals = tuple(self.advertise) or self._reachable_at(connection)
        return text.pack(
            send_targets_pairs(DiscoveredTarget(target.name, portals) for target in targets)
        )

    def _reachable_at(self, connection: Connection) -> tuple[Portal, ...]:
        """The portals as this initiator can use them: a wildcard is the address it came to."""
        portals = []
        for listener in self._listeners:
            portal = _address(listener.getsockname())
            if portal.host in _WILDCARDS:
                portal = Portal(connection.local_address[0], portal.port, PORTAL_GROUP)
            if portal not in portals:
                portals.append(portal)
        return tuple(portals)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if self._stopping:
                    return
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("cannot accept: %s", error)
                    time.sleep(0.1)  # until others have ended; the backlog holds who comes
                continue
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        with self._lock:
            try:
                if len(self._connections) >= MAX_CONNECTIONS:
                    raise OSError(f"{MAX_CONNECTIONS} connections are open")
                connection = Connection(sock, self.find_target, self.send_targets, self._ended)
            except OSError as error:  # or it is gone again, or there is no descriptor left
                log.warning("connection not served: %s", error)
                sock.close()
                return
            self._connections.add(connection)
        connection.start()

    def _ended(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


def _listen(portal: Portal) -> socket.socket:
    family = socket.AF_INET6 if ":" in portal.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((portal.host, portal.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen at {portal}: {error.strerror}") from None
    return listener


def _address(name: tuple[str, int]) -> Portal:
    return Portal(name[0], name[1], PORTAL_GROUP)
