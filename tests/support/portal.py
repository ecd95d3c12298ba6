"""A server in this process, units whose commands run as long as the test wishes, a rude client."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from serverfree.iscsi.names import Portal
from serverfree.target.config import Limits
from serverfree.target.server import Server
from serverfree.target.session import Target
from serverfree.target.units.base import Row, Unit, merge_tables, table_of
from serverfree.target.units.command import Command, Lane
from serverfree.target.units.primary import PRIMARY_TABLE
from serverfree.target.units.reservation_commands import RESERVATION_TABLE
from support.scapy_iscsi import Answer, ScsiCommand, TaskManagement
from support.wire import FINAL, LOGOUT_RESPONSE, READ, WRITE, ConnectionGone, WireClient

NAME = "iqn.2026-11.com.example:patient"
TASK_MANAGEMENT_RESPONSE = 0x22
ASYNC_MESSAGE = 0x32
REJECT = 0x3F
# Vendor specific operation codes; byte 1 is a name for the command.
SHORT, QUEUED, DETACHED, TAKES_DATA, BUSY = 0xC0, 0xC1, 0xC2, 0xC3, 0xC4
LENGTH = 16384  # of the data-out of TAKES_DATA


def _run(unit: "PatientUnit", command: Command) -> None:
    unit.begun.append(command.cdb[1])
    unit.changed.set()
    if command.cdb[0] in (QUEUED, DETACHED, BUSY):
        gate = unit.gate(command.cdb[1])
        while not gate.wait(0.005):
            # A DETACHED one looks at `aborted` between its steps, a QUEUED one is in one step.
            if command.aborted and command.cdb[0] == DETACHED:
                break
    unit.ended.append(command.cdb[1])


class PatientUnit(Unit):
    """`begun` and `ended` name the commands in order; long ones wait for `let`."""

    TABLE = merge_tables(
        PRIMARY_TABLE,
        RESERVATION_TABLE,
        table_of(
            *(
                Row(f"VENDOR {opcode:02X}h", bytes((opcode, 0xFF)) + bytes(14), _run, lane=lane)
                for opcode, lane in (
                    (SHORT, Lane.INLINE),
                    (QUEUED, Lane.QUEUED),
                    (DETACHED, Lane.DETACHED),
                    (BUSY, Lane.INLINE),
                )
            ),
            Row(
                "VENDOR C3h",
                bytes((TAKES_DATA, 0xFF)) + bytes(14),
                _run,
                data_out=lambda unit, cdb: LENGTH,
            ),
        ),
    )
    kind = "disk"
    device_type = 0

    def __init__(self, name: str, *, ordered: bool = False) -> None:
        super().__init__(name, target=NAME)
        self.ordered = ordered
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.changed = threading.Event()
        self.resets = 0
        self._gates: dict[int, threading.Event] = {}

    def gate(self, name: int) -> threading.Event:
        """What the command of this name waits for."""
        return self._gates.setdefault(name, threading.Event())

    def let(self, *names: int) -> None:
        """Let these commands end."""
        for name in names:
            self.gate(name).set()

    def reset(self) -> None:
        """Count it."""
        self.resets += 1
        super().reset()


@contextmanager
def serving(units: Sequence[Unit], limits: Limits | None = None) -> Iterator[Server]:
    """Serve units as LUNs from 0 of one target; `server.address` is where."""
    server = Server([Target(NAME, units)], [Portal("127.0.0.1", 0)], limits=limits)
    server.start()
    try:
        yield server
    finally:
        for unit in units:
            if isinstance(unit, PatientUnit):
                unit.let(*range(256))
        server.stop()


class Client(WireClient):
    """Has several commands under way, and takes what comes as it comes."""

    def __init__(self, server: Server, **options: object) -> None:
        address = server._entrances[0].address
        super().__init__((address.host, address.port), NAME, **options)  # type: ignore[arg-type]
        self.kept: list[Answer] = []

    def start(
        self,
        opcode: int,
        name: int = 0,
        *,
        lun: int = 0,
        attribute: int = 1,
        length: int = 0,
        data: bytes = b"",
        immediate: bool = False,
    ) -> int:
        """Send a command and return its task tag."""
        self.tag += 1
        direction = WRITE if length and opcode == TAKES_DATA else READ if length else 0
        self.send(
            ScsiCommand(
                immediate=int(immediate),
                flags=FINAL | direction | attribute,
                lun=lun << 48,
                initiator_task_tag=self.tag,
                expected_data_transfer_length=length,
                cmd_sn=self.cmd_sn,
                cdb=bytes((opcode, name)).ljust(16, b"\0"),
                data=data,
            )
        )
        if not immediate:
            self.cmd_sn += 1
        return self.tag

    def manage(
        self,
        function: int,
        *,
        lun: int = 0,
        task: int = 0xFFFFFFFF,
        ref_cmd_sn: int = 0,
    ) -> int:
        """Send an immediate task management request and return its tag."""
        self.tag += 1
        self.send(
            TaskManagement(
                immediate=1,
                flags=FINAL | function,
                lun=lun << 48,
                initiator_task_tag=self.tag,
                referenced_task_tag=task,
                cmd_sn=self.cmd_sn,
                ref_cmd_sn=ref_cmd_sn,
            )
        )
        return self.tag

    def answer(self, tag: int) -> Answer:
        """Return the PDU that answers this tag; others are kept."""
        for kept in self.kept:
            if kept.initiator_task_tag == tag:
                self.kept.remove(kept)
                return kept
        while True:
            got = self.receive()
            if got.initiator_task_tag == tag:
                return got
            self.kept.append(got)

    def of_kind(self, opcode: int) -> Answer:
        """Return the next PDU with this opcode; others are kept."""
        for kept in self.kept:
            if kept.opcode == opcode:
                self.kept.remove(kept)
                return kept
        while (got := self.receive()).opcode != opcode:
            self.kept.append(got)
        return got

    def silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes for so long."""
        self.socket.settimeout(seconds)
        try:
            self.kept.append(self.receive())
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(20)
        return False

    def gone(self) -> bool:
        """Wait for the target to end the connection."""
        with suppress(ConnectionGone):
            while True:
                self.kept.append(self.receive())
        return True

    def attention(self, lun: int = 0) -> int:
        """The unit attention that is next, 0 if none: what TEST UNIT READY ends with."""
        ended = self.answer(self.start(0x00, lun=lun))
        return int.from_bytes(ended.data[14:16], "big") if ended.status == 2 else 0

    def attentions(self, lun: int = 0) -> list[int]:
        """All unit attentions that there are."""
        found = []
        while asc := self.attention(lun):
            found.append(asc)
        return found


def until(condition: Callable[[], bool], timeout: float = 5.0) -> bool:
    """Wait for something to become true in another thread."""
    waiter = threading.Event()
    for _ in range(int(timeout / 0.005)):
        if condition():
            return True
        waiter.wait(0.005)
    return False


__all__ = ["LOGOUT_RESPONSE", "Client", "PatientUnit", "serving", "until"]
