"""A loaded cartridge, where the heads stand, and what every command on it has in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from typing import TYPE_CHECKING

from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, illegal_request, invalid_field_in_cdb
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.backstore.cartridge import Cartridge
from serverfree.target.backstore.cartridge_errors import DamagedRecord, WriteFailed
from serverfree.target.backstore.cartridge_log import RecordType
from serverfree.target.backstore.cartridge_memory import Life
from serverfree.target.backstore.cartridge_partition import Partition
from serverfree.target.units.command import Command, Reply

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

_INFORMATION_LIMIT = 1 << 32


@dataclass(frozen=True, slots=True)
class Allowance:
    """What ALLOW OVERWRITE allowed, and the position that it holds for."""

    format: bool
    partition: int
    block: int


class Medium:
    """A cartridge in the drive and the position on it.

    `block` numbers the logical object that the heads stand before, in partition `number`.
    `recovered` counts the buffered objects that RECOVER BUFFERED DATA has given back. `warned` is
    the partition whose programmable early warning has been given. `read_up_to` is where the latest
    READ ended.
    """

    def __init__(self, cartridge: Cartridge) -> None:
        self.cartridge = cartridge
        self.number = 0
        self.block = 0
        self.allowance: Allowance | None = None
        self.log_base = Life(**asdict(self.life))
        self.recovered = 0
        self.warned: int | None = None
        self.read_up_to = -1

    @property
    def partition(self) -> Partition:
        """The partition that the heads are in."""
        return self.cartridge.partitions[self.number]

    @property
    def life(self) -> Life:
        """The cartridge's counters."""
        return self.cartridge.memory.life

    @property
    def at_beginning(self) -> bool:
        """Return whether the heads stand at the beginning of the first partition."""
        return not self.block and not self.number

    @property
    def at_eod(self) -> bool:
        """Return whether nothing follows."""
        return self.block >= self.partition.eod

    @property
    def at_append_point(self) -> bool:
        """Return whether what is written here overwrites nothing but marks before end of data.

        Those may go where they follow another mark or where there is nothing else: so software
        adds a file behind the two marks that end a tape.
        """
        partition, block = self.partition, self.block
        behind = partition.eod - block
        if behind <= 0:
            return True
        if partition.file_at(partition.eod) - partition.file_at(block) < behind:
            return False
        return not block or partition.entry(block - 1).type == RecordType.FILEMARK

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

    def locate(self, number: int | None, target: int | None) -> None:
        """Go to an object; to the end of data, with BLANK CHECK, if there is none such."""
        self.cartridge.sync()
        if number is not None:
            self.number = number
        eod = self.partition.eod
        if target is None or target > eod:
            self.block = eod
            raise self.end_of_data(None)
        self.block = target

    def begin_at(self, number: int, block: int) -> None:
        """Go where a command of the explicit address set begins, if that is not here."""
        if number >= len(self.cartridge.partitions):
            raise invalid_field_in_cdb(3)
        if (number, block) != (self.number, self.block):
            self.locate(number, block)

    def require_beginning(self) -> None:
        """Raise ILLEGAL REQUEST 3B/0C unless the heads stand at the very beginning."""
        if not self.at_beginning:
            raise illegal_request(Asc.POSITION_PAST_BEGINNING_OF_MEDIUM)


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


def beginning_of_partition(residual: int) -> CheckCondition:
    """The sense of having come to the beginning, with what was left to do."""
    asc = Asc.BEGINNING_OF_PARTITION_MEDIUM_DETECTED
    return check_condition(SenseKey.NO_SENSE, asc, residual, eom=True)


def filemark_detected(residual: int) -> CheckCondition:
    """The sense of having come to a filemark, with what was left to do."""
    return check_condition(SenseKey.NO_SENSE, Asc.FILEMARK_DETECTED, residual, filemark=True)


Outcome = Reply | Buffer | None


def on_medium(
    run: Callable[[StreamUnit, Medium, Command], Outcome],
) -> Callable[[StreamUnit, Command], Outcome]:
    """Make a row's function of one that works on the medium: ready, alone, errors as sense."""
    return _alone(run, lambda unit: unit.require_medium())


def on_memory(
    run: Callable[[StreamUnit, Medium, Command], Outcome],
) -> Callable[[StreamUnit, Command], Outcome]:
    """The same for one that needs no more than the memory of a cartridge in the drive."""
    return _alone(run, lambda unit: unit.require_memory())


def _alone(
    run: Callable[[StreamUnit, Medium, Command], Outcome],
    required: Callable[[StreamUnit], Medium],
) -> Callable[[StreamUnit, Command], Outcome]:
    @wraps(run)
    def locked(unit: StreamUnit, command: Command) -> Outcome:
        with unit.lock:
            medium = required(unit)
            try:
                return run(unit, medium, command)
            except WriteFailed as error:
                unit.count_write_error(medium)
                raise medium_error(Asc.WRITE_ERROR) from error
            except DamagedRecord as error:
                raise medium_error(Asc.UNRECOVERED_READ_ERROR) from error
            finally:
                allowed = medium.allowance
                # ... and not a step away from there.
                if allowed and (allowed.partition, allowed.block) != (medium.number, medium.block):
                    medium.allowance = None

    return locked


def medium_error(asc: Asc, residual: int | None = None) -> CheckCondition:
    """MEDIUM ERROR."""
    return check_condition(SenseKey.MEDIUM_ERROR, asc, residual)
