"""FORMAT UNIT and SANITIZE as what they are: long operations during which a disk is not ready."""

import logging
from collections.abc import Callable, Iterator
from threading import Event, Thread

from serverfree.scsi.cdb.primary import PageControl
from serverfree.scsi.errors import CheckCondition, UnexpectedStatus
from serverfree.scsi.opcodes import OperationCode, ServiceAction
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.units.command import Command
from serverfree.target.units.table import Row

log = logging.getLogger(__name__)

Steps = Iterator[float]
"""What is done of the whole, 0 to 1, after each step; closing it stops the operation there."""

_ALLOWED = frozenset(
    {
        (OperationCode.INQUIRY, None),
        (OperationCode.READ_CAPACITY_10, None),
        (OperationCode.SERVICE_ACTION_IN_16, ServiceAction.READ_CAPACITY_16),
        (OperationCode.REPORT_LUNS, None),
        (OperationCode.MAINTENANCE_IN, ServiceAction.REPORT_SUPPORTED_OPERATION_CODES),
        (OperationCode.MAINTENANCE_IN, 0x0D),  # REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
        (OperationCode.REQUEST_SENSE, None),
    }
)
_NEEDS_FORMAT = frozenset(
    # A disk that is format corrupt refuses these (SBC-4 4.33.3.1): what reads and writes blocks.
    # TEST UNIT READY tells whether they would do.
    {
        OperationCode.TEST_UNIT_READY,
        *(0x08, 0x28, 0xA8, 0x88, 0x7F),  # READ(6), (10), (12), (16), commands of 32 bytes
        *(0x0A, 0x2A, 0xAA, 0x8A, 0x9C),  # WRITE, WRITE ATOMIC
        *(0x2E, 0xAE, 0x8E, 0x2F, 0xAF, 0x8F),  # WRITE AND VERIFY, VERIFY
        *(0x41, 0x93, 0x42, 0x89, 0x8B),  # WRITE SAME, UNMAP, COMPARE AND WRITE, ORWRITE
        *(0x34, 0x90, 0x07, 0x83),  # PRE-FETCH, REASSIGN BLOCKS, EXTENDED COPY and tokens
    }
)
_ALLOWED_LOG_PAGES = {0x0D}
_ALLOWED_MODE_PAGES = {0x08, 0x0A, 0x18, 0x19, 0x1C}
_WAIT_STEP = 0.05

SANITIZE_SECTION = "sanitize"
"""Of the state file: there while a sanitize operation has begun and not been completed."""


class MediumOperation:
    """At most one operation on a whole medium, and what is left of one that failed.

    `changed(on)` is called when commands begin or cease to be judged by `check`. The operation goes
    on whatever becomes of the command that asked for it (SBC-4 4.11.3 f).
    """

    def __init__(self, name: str, changed: Callable[[bool], None]) -> None:
        self._name = name
        self._changed = changed
        self._thread: Thread | None = None
        self._ended = Event()
        self._closing = False
        self._progress = 0
        self._running: Asc | None = None
        self.failed: Asc | None = None

    @property
    def running(self) -> bool:
        """Whether an operation is under way."""
        return self._running is not None

    @property
    def format_corrupt(self) -> bool:
        """Whether FORMAT UNIT has begun and failed, or was interrupted."""
        return not self.running and self.failed is Asc.MEDIUM_FORMAT_CORRUPTED

    def sense(self) -> Sense | None:
        """What pollable sense data says of it: under way, failed, or None."""
        if (asc := self._running) is not None:
            return Sense(SenseKey.NOT_READY, asc, progress=self._progress)
        if self.failed is not None:
            return Sense(SenseKey.MEDIUM_ERROR, self.failed)
        return None

    def check(self, row: Row, command: Command) -> None:
        """Refuse a command that is not allowed now (4.11.2, 4.33.1)."""
        sense = self.sense()
        if sense is None or (row.opcode, row.service_action) in _ALLOWED:
            return
        cdb = command.cdb
        match row.opcode:
            case OperationCode.SANITIZE if not self.running:
                return  # its rows know what gets a disk out of a failed sanitize operation
            case opcode if self.format_corrupt and opcode not in _NEEDS_FORMAT:
                return
            case OperationCode.LOG_SENSE if cdb[2] & 0x3F in _ALLOWED_LOG_PAGES:
                return
            case OperationCode.MODE_SENSE_6 | OperationCode.MODE_SENSE_10:
                if cdb[2] & 0x3F in _ALLOWED_MODE_PAGES and cdb[2] >> 6 != PageControl.SAVED:
                    return
        raise CheckCondition(sense)

    def fail(self, asc: Asc) -> None:
        """Be as after an operation that failed: in this process or before it."""
        self.failed = asc
        self._changed(True)

    def clear(self) -> None:
        """Forget a failure."""
        self.failed = None
        self._changed(False)

    def begin(
        self, asc: Asc, failure: Asc, steps: Callable[[], Steps], finished: Callable[[], None]
    ) -> None:
        """Begin an operation; `finished` is called when all of it has been done.

        `asc` is NOT READY's while it is under way, `failure` MEDIUM ERROR's if it fails.
        """
        self._running, self._progress, self.failed = asc, 0, None
        self._ended.clear()
        self._changed(True)
        self._thread = Thread(
            target=self._run,
            args=(failure, steps, finished),
            name=f"unit {self._name} medium",
            daemon=True,
        )
        self._thread.start()

    def wait(self, command: Command) -> None:
        """Wait for the end. Raises what it ended with, or TASK ABORTED: then it goes on alone."""
        while not self._ended.wait(_WAIT_STEP):
            if command.aborted:
                raise UnexpectedStatus(Status.TASK_ABORTED)
        if self.failed is not None:
            raise CheckCondition(Sense(SenseKey.MEDIUM_ERROR, self.failed))

    def close(self) -> None:
        """Stop where it is: what was not done is found undone by the next process."""
        self._closing = True
        if self._thread is not None:
            self._thread.join()

    def _run(self, failure: Asc, steps: Callable[[], Steps], finished: Callable[[], None]) -> None:
        try:
            for done in steps():
                self._progress = min(0xFFFF, int(done * 0x10000))
                if self._closing:
                    return
            finished()
        except Exception as error:
            log.error("%s: operation on the whole medium: %s", self._name, error)
            self.failed = failure
        finally:
            self._running = None
            self._changed(self.failed is not None)
            self._ended.set()
