"""A loaded cartridge, where the heads stand, and what every command on it has in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.backstore.cartridge import Cartridge
from serverfree.target.backstore.cartridge_errors import DamagedRecord, WriteFailed
from serverfree.target.backstore.cartridge_partition import Partition
from serverfree.target.units.command import Command, Reply

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

_INFORMATION_LIMIT = 1 << 32


class Medium:
    """A cartridge in the drive and the position on it.

    `block` numbers the logical object that the heads stand before.
    """

    def __init__(self, cartridge: Cartridge) -> None:
        self.cartridge = cartridge
        self.number = 0
        self.block = 0

    @property
    def partition(self) -> Partition:
        """The partition that the heads are in."""
        return self.cartridge.partitions[self.number]

    @property
    def at_eod(self) -> bool:
        """Return whether nothing follows."""
        return self.block >= self.partition.eod

    @property
    def in_early_warning(self) -> bool:
        """Return whether the heads are in the early-warning zone."""
        return self.partition.used_at(self.block) >= self.partition.early_warning

    def end_of_data(self, residual: int | None) -> CheckCondition:
        """The sense of having come to the end of data, with what was left to do."""
        return check_condition(
            SenseKey.BLANK_CHECK,
            Asc.END_OF_DATA_DETECTED,
            residual,
            eom=self.in_early_warning,
        )


def check_condition(
    key: SenseKey,
    asc: Asc,
    residual: int | None,
    *,
    filemark: bool = False,
    eom: bool = False,
    ili: bool = False,
) -> CheckCondition:
    """CHECK CONDITION with INFORMATION, which is left out where its four bytes cannot hold it."""
    if residual is not None and residual >= _INFORMATION_LIMIT:
        residual = None
    return CheckCondition(Sense(key, asc, residual, filemark=filemark, eom=eom, ili=ili))


Outcome = Reply | Buffer | None


def on_medium(
    run: Callable[[StreamUnit, Medium, Command], Outcome],
) -> Callable[[StreamUnit, Command], Outcome]:
    """Make a row's function of one that works on the medium: ready, alone, errors as sense."""

    @wraps(run)
    def locked(unit: StreamUnit, command: Command) -> Outcome:
        with unit.lock:
            medium = unit.require_medium()
            try:
                return run(unit, medium, command)
            except WriteFailed as error:
                raise medium_error(Asc.WRITE_ERROR) from error
            except DamagedRecord as error:
                raise medium_error(Asc.UNRECOVERED_READ_ERROR) from error

    return locked


def medium_error(asc: Asc, residual: int | None = None) -> CheckCondition:
    """MEDIUM ERROR."""
    return check_condition(SenseKey.MEDIUM_ERROR, asc, residual)
