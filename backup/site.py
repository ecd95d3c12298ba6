"""The units that a job works with, and their sessions: opened when needed, anew when lost."""

import contextlib
from types import TracebackType
from typing import Self

from serverfree.initiator.connection import Timing
from serverfree.initiator.copy import CopyManager
from serverfree.initiator.disk import Disk
from serverfree.initiator.session import LogicalUnit, Session
from serverfree.initiator.tape import Tape
from serverfree.initiator.unit import Unit
from serverfree.initiator.xcopy import Meter
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import Url
from serverfree.scsi.inquiry import DeviceType

# A job asks again what it can ask again: it need not wait long for a server that has gone.
_TIMING = Timing(connect=10.0, login=15.0, ping=5.0, silence=30.0, logout=3.0)


class Site:
    """A copy manager, a tape and disks by their URLs. A context manager, which logs out.

    `meter` counts what passes through this machine.
    """

    def __init__(self, mover: str | Url | None, tape: str | Url, timing: Timing = _TIMING) -> None:
        self.meter = Meter(timing)
        self.mover_url = mover
        self.tape_url = tape
        self._sessions: list[Session] = []
        self._manager: CopyManager | None = None
        self._tape: Tape | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Log out everywhere."""
        for session in self._sessions:
            with contextlib.suppress(ProtocolError):
                session.close()
        self._sessions.clear()
        self._manager = self._tape = None

    @property
    def manager(self) -> CopyManager:
        """The copy manager; what it keeps about a copy it keeps for this session."""
        if self._manager is None:
            if self.mover_url is None:
                raise ValueError("no copy manager was named")
            self._manager = CopyManager(self._open(self.mover_url))
        return self._manager

    @property
    def tape(self) -> Tape:
        """The tape drive. Raises WrongDevice for another kind of unit."""
        if self._tape is None:
            tape = Tape(self._open(self.tape_url))
            tape.expect(DeviceType.TAPE)
            self._tape = tape
        return self._tape

    def disk(self, url: str | Url) -> Disk:
        """Open a disk. Raises WrongDevice for another kind of unit."""
        disk = Disk(self._open(url))
        disk.expect(DeviceType.DISK)
        return disk

    def close_disk(self, disk: Disk) -> None:
        """Log out from a disk."""
        self._let_go(disk)

    def renew(self) -> None:
        """Log in anew at the copy manager and the tape: a session may have been lost."""
        if self._manager is not None:
            self._let_go(self._manager)
            self._manager = None
            self.manager.settle()
        self.renew_tape()

    def renew_tape(self) -> None:
        """Log in anew at the tape."""
        if self._tape is not None:
            self._let_go(self._tape)
            self._tape = None
        self.tape.settle()

    def _let_go(self, unit: Unit) -> None:
        device = unit.device
        assert isinstance(device, LogicalUnit)
        with contextlib.suppress(ProtocolError):
            device.session.close()
        self._sessions.remove(device.session)

    def _open(self, url: str | Url) -> LogicalUnit:
        unit = self.meter.open(url)
        self._sessions.append(unit.session)
        return unit
