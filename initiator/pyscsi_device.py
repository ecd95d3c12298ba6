"""A logical unit as a pyscsi device: pyscsi's command classes over our sessions, no C library."""

from functools import cache
from typing import Any

from serverfree.initiator.session import LogicalUnit
from serverfree.scsi.errors import UnexpectedStatus
from serverfree.scsi.status import Status


@cache
def _device_class() -> Any:
    # pyscsi is a guest here: whoever has it may use it, nothing else needs it.
    from pyscsi.pyscsi.scsi_device import SCSIDevice
    from pyscsi.pyscsi.scsi_enum_command import spc

    class SessionDevice(SCSIDevice):  # type: ignore[misc]
        """Carries pyscsi commands to a unit. Exceptions are those of pyscsi's devices."""

        def __init__(self, unit: LogicalUnit) -> None:
            # Not the base's: it opens a device node.
            self._unit = unit
            self._opcodes = spc
            self._devicetype = 0

        def __repr__(self) -> str:
            return str(self._unit)

        def execute(self, cmd: Any, en_raw_sense: bool = False) -> None:
            """Run a command; its `datain` is filled. Raises CheckCondition of this class."""
            data_in = memoryview(cmd.datain) if len(cmd.datain) else None
            pending = self._unit.submit(bytes(cmd.cdb), data_out=cmd.dataout, data_in=data_in)
            result = pending.wait()
            if result.status in (Status.GOOD, Status.CONDITION_MET):
                return
            if result.status is Status.CHECK_CONDITION and result.sense is not None:
                if en_raw_sense:
                    cmd.raw_sense_data = result.sense.raw
                raise self.CheckCondition(bytearray(result.sense.raw))
            raise UnexpectedStatus(result.status)

        def close(self) -> None:
            """Log out."""
            self._unit.session.close()

    return SessionDevice


def pyscsi_device(unit: LogicalUnit) -> Any:
    """Return the unit as a pyscsi `SCSIDevice`, to be given to pyscsi's `SCSI`.

    Raises ImportError where pyscsi is not installed.
    """
    return _device_class()(unit)
