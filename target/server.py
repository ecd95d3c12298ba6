"""The server: portals that listen, the targets behind them, the connections that came in."""

import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from threading import Lock, Thread

from serverfree.iscsi import text
from serverfree.iscsi.chap import Account
from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure
from serverfree.iscsi.login import TargetLogin
from serverfree.iscsi.names import DiscoveredTarget, Portal, send_targets_pairs
from serverfree.target.config import Limits
from serverfree.target.connection import Connection
from serverfree.target.session import Target

log = logging.getLogger(__name__)

LOGOUT_TIME = 1  # second for initiators to log out when the server stops
BACKLOG = 128
WILDCARDS = ("0.0.0.0", "::")


class Server:
    """Targets served at portals until `stop`.

    `advertise` is what SendTargets names instead of the portals' own addresses: for initiators
    that reach us through an address translation. `discovery` are the accounts, by CHAP name, of
    those who may ask for SendTargets; empty: anybody. `targets` may be added to and taken from
    while serving: by `add_target` and `remove_target`.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        portals: Sequence[Portal],
        advertise: Sequence[Portal] = (),
        *,
        limits: Limits | None = None,
        discovery: Mapping[str, Account] | None = None,
    ) -> None:
        self.portals = portals
        self.advertise = advertise
        self.limits = limits or Limits()
        self.discovery = discovery or {}
        self._targets = {target.name: target for target in targets}
        self._retired: dict[str, Target] = {}  # no logins any more; their sessions go on
        self._entrances: list[_Entrance] = []
        self._connections: set[Connection] = set()
        self._lock = Lock()
        self._stopped = False

    @property
    def targets(self) -> list[Target]:
        """What is served at this moment."""
        return list(self._targets.values())

    def start(self) -> list[Portal]:
        """Listen at every portal and return the addresses, port 0 replaced by the one chosen.

        Raises OSError, with the portal in its text, if one cannot be had; then none is.
        """
        for entrance in self._listen(self.portals):
            self._entrances.append(entrance)
            entrance.open()
        return self.addresses

    @property
    def addresses(self) -> list[Portal]:
        """Where we listen at this moment."""
        return [entrance.address for entrance in self._entrances]

    def move_to(self, portals: Sequence[Portal]) -> Callable[[], None]:
        """Listen at new portals, and return what makes the change.

        Until that is called nobody is let in at the new ones; then those that are not wanted any
        more are closed, and connections that came through them end. Raises OSError.
        """
        here = {entrance.portal for entrance in self._entrances}
        new = self._listen([portal for portal in portals if portal not in here])

        def change() -> None:
            old = [entrance for entrance in self._entrances if entrance.portal not in portals]
            for entrance in new:
                entrance.open()
            self._entrances = [e for e in self._entrances if e not in old] + new
            self.portals = portals
            for entrance in old:
                entrance.close()
            with self._lock:
                cut = [one for one in self._connections if one.entrance in old]
            for connection in cut:
                connection.drop()

        return change

    def _listen(self, portals: Sequence[Portal]) -> "list[_Entrance]":
        entrances: list[_Entrance] = []
        try:
            for portal in portals:
                entrances.append(_Entrance(self, _listen(portal), portal))
        except OSError:
            for entrance in entrances:
                entrance.close()
            raise
        return entrances

    def stop(self) -> None:
        """Take no more, end every connection, put everything acknowledged on stable storage.

        A second time it does nothing.
        """
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        for entrance in self._entrances:
            entrance.close()
        with self._lock:
            connections = list(self._connections)
        # Those who are asked may log out in good order, and know that the target will be gone.
        asked = [each for each in connections if each.ask_to_leave(LOGOUT_TIME)]
        deadline = time.monotonic() + LOGOUT_TIME
        for connection in asked:
            connection.join(max(0.0, deadline - time.monotonic()))
        for connection in connections:
            connection.drop()
        for target in [*self.targets, *self._retired.values()]:
            target.close()

    def add_target(self, target: Target) -> None:
        """Serve one target more."""
        self._targets = {**self._targets, target.name: target}

    def remove_target(self, name: str) -> Target:
        """Let nobody log in at a target any more, and return it; its sessions go on."""
        rest = dict(self._targets)
        target = rest.pop(name)
        self._targets = rest
        self._retired[name] = target
        return target

    def restore_target(self, name: str) -> Target | None:
        """Let initiators log in again at a target that was removed; None if there is none."""
        target = self._retired.pop(name, None)
        if target is not None:
            self.add_target(target)
        return target

    def find_target(self, name: str) -> Target:
        """Return the target of this name; LoginFailure NOT FOUND if there is none."""
        target = self._targets.get(name)
        if target is None:
            raise LoginFailure(LoginStatus.NOT_FOUND, f"no target {name}")
        return target

    def _addresses(self, connection: Connection, target: Target) -> tuple[Portal, ...]:
        """Where a target is reached, as this initiator can use it.

        A wildcard is the address that the initiator came to.
        """
        if self.advertise:
            return tuple(self.advertise)
        portals: list[Portal] = []
        for entrance in self._entrances:
            if target.groups is not None and entrance.group_tag not in target.groups:
                continue
            portal = entrance.address
            if portal.host in WILDCARDS:
                portal = Portal(connection.local_address[0], portal.port, entrance.group_tag)
            if portal not in portals:
                portals.append(portal)
        return tuple(portals)

    def _welcome(self, sock: socket.socket, entrance: "_Entrance") -> None:
        with self._lock:
            try:
                here = sum(one.entrance is entrance for one in self._connections)
                if here >= self.limits.connections:
                    raise OSError(f"{here} connections are open at {entrance.address}")
                connection = Connection(sock, entrance, self._ended)
            except OSError as error:  # or it is gone again, or there is no descriptor left
                log.warning("connection not served: %s", error)
                sock.close()
                return
            self._connections.add(connection)
        connection.start()

    def _admit(self, login: TargetLogin, connection: Connection) -> None:
        with self._lock:
            counts = Counter(one.initiator_name for one in self._connections)
            if counts[login.initiator_name] >= self.limits.connections_per_initiator:
                raise LoginFailure(
                    LoginStatus.TOO_MANY_CONNECTIONS,
                    f"{login.initiator_name} has {counts[login.initiator_name]} connections",
                )
            connection.initiator_name = login.initiator_name

    def _ended(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


class _Entrance:
    """One portal: its listening socket, and what those who come through it find."""

    def __init__(self, server: Server, listener: socket.socket, portal: Portal) -> None:
        self.portal = portal  # as it was asked for
        self.group_tag = portal.group_tag
        host, port = listener.getsockname()[:2]
        self.address = Portal(host, port, portal.group_tag)
        self._server = server
        self._listener = listener
        self._closing = False
        self._thread: Thread | None = None

    @property
    def login_timeout(self) -> int:
        """Seconds that a login may take."""
        return self._server.limits.login_timeout

    @property
    def ping(self) -> tuple[float, float]:
        """Seconds of silence before a ping, 0: never; and those that its answer may take."""
        return self._server.limits.ping_interval, self._server.limits.ping_timeout

    def open(self) -> None:
        """Take connections."""
        self._thread = Thread(target=self._accept, name=f"portal {self.address}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more."""
        self._closing = True
        if self._thread is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
            self._thread.join()
        self._listener.close()

    def find_target(self, login: TargetLogin, name: str) -> Target:
        """Return the target, if it is at this portal, for this initiator, and not elsewhere."""
        target = self._server.find_target(name)
        if target.groups is not None and self.group_tag not in target.groups:
            raise LoginFailure(
                LoginStatus.NOT_FOUND, f"{name} is not in portal group {self.group_tag}"
            )
        target.access.find(login.initiator_name)
        if target.redirect is not None:
            raise target.redirect.refusal()
        return target

    def accounts(self, login: TargetLogin) -> Mapping[str, Account]:
        """Return who may log in like this, by CHAP name."""
        if not login.target_name:
            return self._server.discovery
        entry = self._server.find_target(login.target_name).access.find(login.initiator_name)
        return {} if entry.account is None else {entry.account.credentials.name: entry.account}

    def admit(self, login: TargetLogin, connection: Connection) -> None:
        """Refuse an initiator that has too many connections."""
        self._server._admit(login, connection)

    def send_targets(self, connection: Connection, which: str) -> bytes:
        """Answer SendTargets (RFC 7143 appendix C): `All`, a name, or "" for the session's own.

        Told are the targets that the initiator may log in at.
        """
        session = connection.session
        name = which or (session.target.name if session else "")
        targets = [
            target
            for target in self._server.targets
            if name in ("All", target.name) and target.access.allows(connection.initiator_name)
        ]
        found = (
            DiscoveredTarget(target.name, self._server._addresses(connection, target))
            for target in targets
        )
        return text.pack(send_targets_pairs(one for one in found if one.portals))

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if self._closing:
                    return
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("cannot accept: %s", error)
                    time.sleep(0.1)  # until others have ended; the backlog holds who comes
                continue
            self._server._welcome(sock, self)


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
