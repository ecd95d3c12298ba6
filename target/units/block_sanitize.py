"""SANITIZE and FORMAT UNIT of a disk (SBC-4 4.11, 4.33, 5.4, 5.30)."""

import os
import time
from collections.abc import Callable

from serverfree.scsi.cdb.block_medium import (
    FormatUnit,
    SanitizeBlockErase,
    SanitizeCryptographicErase,
    SanitizeExitFailureMode,
    SanitizeOverwrite,
)
from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.errors import (
    CheckCondition,
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.medium import OVERWRITE_HEADER, FormatList, OverwriteList
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from serverfree.target.units.base import Row, Table, table_of
from serverfree.target.units.block_device import STEP, BlockDevice
from serverfree.target.units.command import Command, Lane, Nexus
from serverfree.target.units.medium_operation import SANITIZE_SECTION, Steps

_LONGEST_FORMAT_LIST = 1 << 16


def _fill(unit: BlockDevice, passes: list[Callable[[int], bytes]]) -> Steps:
    """Overwrite the medium once for each pass, durably; a pass makes the bytes of one step."""
    size = unit.store.size
    for number, content in enumerate(passes):
        for at in range(0, size, STEP):
            unit.store.write(at, content(min(STEP, size - at)))
            if unit.operation_rate:
                time.sleep(STEP / unit.operation_rate)
            yield (number + min(at + STEP, size) / size) / len(passes)
        # Each pass reaches the medium before the next, or only the last one ever would.
        unit.store.flush()


def _repeated(block: bytes) -> Callable[[int], bytes]:
    whole = block * (STEP // len(block))
    return lambda length: whole[:length]


def _discard_or(unit: BlockDevice, passes: list[Callable[[int], bytes]]) -> Callable[[], Steps]:
    """Give all space back where the disk is thin (4.11.4: deallocated afterwards), else overwrite.

    What the file system of the host does with freed space is not in our hands.
    """

    def steps() -> Steps:
        if not unit.thin:
            yield from _fill(unit, passes)
            return
        for at in range(0, unit.store.size, 64 * STEP):
            unit.store.discard(at, min(64 * STEP, unit.store.size - at))
            yield at / unit.store.size
        unit.store.flush()

    return steps


def _begin_sanitize(
    unit: BlockDevice,
    command: Command,
    cdb: SanitizeOverwrite | SanitizeBlockErase | SanitizeCryptographicErase,
    steps: Callable[[], Steps],
) -> None:
    kept = None if unit.state is None else unit.state.get(SANITIZE_SECTION)
    if kept is not None and kept["restricted"] and cdb.allow_unrestricted_exit:
        # 5.30.1: a failure in restricted completion mode is not got out of so.
        raise invalid_field_in_cdb(1, 5)
    unit.require_medium()
    unit.require_writable()
    # 1. That the medium is neither what it was nor clean is on stable storage ...
    if unit.state is not None:
        unit.state.put(SANITIZE_SECTION, {"restricted": not cdb.allow_unrestricted_exit})
    # 2. ... no command that has begun still writes, no other begins ...
    unit.operation.begin(
        Asc.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS,
        Asc.SANITIZE_COMMAND_FAILED,
        lambda: _alone(unit, lambda: _with_points_in_time(unit, steps)),
        lambda: _forget(unit, command.nexus),
    )
    # 3. ... and the command ends now, or with the operation.
    if not cdb.immed:
        unit.operation.wait(command)


def _alone(unit: BlockDevice, steps: Callable[[], Steps]) -> Steps:
    with unit.exclusion.alone(0, unit.store.size):
        pass
    yield from steps()


def _with_points_in_time(unit: BlockDevice, steps: Callable[[], Steps]) -> Steps:
    """No snapshot and no token may show what was there (4.11), nor one that is made meanwhile."""
    _forget_snapshots(unit)
    yield from steps()
    _forget_snapshots(unit)


def _forget_snapshots(unit: BlockDevice) -> None:
    if isinstance(unit.store, SnapshotOrigin):
        unit.store.forget("the disk has been sanitized")


def _forget(unit: BlockDevice, nexus: Nexus) -> None:
    unit.formatted(unit.format.present, nexus)
    if unit.state is not None:
        unit.state.put(SANITIZE_SECTION, None)


def _overwrite_length(unit: BlockDevice, cdb: bytes) -> int:
    length = SanitizeOverwrite.unpack(cdb).parameter_list_length
    if not OVERWRITE_HEADER < length <= OVERWRITE_HEADER + unit.block_size:
        raise invalid_field_in_cdb(7)
    return length


def _sanitize_overwrite(unit: BlockDevice, command: Command) -> None:
    cdb = SanitizeOverwrite.unpack(command.cdb)
    length = _overwrite_length(unit, command.cdb)
    if len(command.data_out) < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    try:
        order = OverwriteList.unpack(command.data_out[:length])
    except ValueError:
        raise invalid_field_in_parameter_list(0) from None
    # A pattern shorter than a block is repeated in it and cut at its end (5.30.2.2).
    block = (order.pattern * (unit.block_size // len(order.pattern) + 1))[: unit.block_size]
    inverted = bytes(byte ^ 0xFF for byte in block)
    passes = [
        _repeated(inverted if order.invert and (order.count - 1 - number) % 2 else block)
        for number in range(order.count)
    ]
    _begin_sanitize(unit, command, cdb, lambda: _fill(unit, passes))


def _sanitize_block_erase(unit: BlockDevice, command: Command) -> None:
    cdb = SanitizeBlockErase.unpack(command.cdb)
    _begin_sanitize(unit, command, cdb, _discard_or(unit, [_repeated(bytes(unit.block_size))]))


def _sanitize_cryptographic_erase(unit: BlockDevice, command: Command) -> None:
    """What a changed key would leave of a disk: bytes that tell nothing, everywhere."""
    cdb = SanitizeCryptographicErase.unpack(command.cdb)
    _begin_sanitize(unit, command, cdb, _discard_or(unit, [os.urandom]))


def _sanitize_exit_failure_mode(unit: BlockDevice, command: Command) -> None:
    kept = None if unit.state is None else unit.state.get(SANITIZE_SECTION)
    if kept is not None and kept["restricted"] and unit.operation.failed is not None:
        raise CheckCondition(Sense(SenseKey.MEDIUM_ERROR, Asc.SANITIZE_COMMAND_FAILED))
    if unit.operation.failed is not Asc.SANITIZE_COMMAND_FAILED:
        return  # there is nothing to get out of, or only FORMAT UNIT gets out of it
    if unit.state is not None:
        unit.state.put(SANITIZE_SECTION, None)
    unit.operation.clear()


def _sanitize_row(name: str, layout: type[Cdb], run: Callable[[BlockDevice, Command], None]) -> Row:
    return Row(
        f"SANITIZE, {name}",
        layout.USAGE,
        run,
        data_out=_overwrite_length if layout is SanitizeOverwrite else None,
        # Its end may be hours away, and the unit must go on to answer that it is not ready.
        lane=Lane.DETACHED,
        service_action=layout.SERVICE_ACTION,
    )


def _format_unit(unit: BlockDevice, command: Command) -> None:
    """5.4: every block is written anew; there is no defect to be mapped out of a file.

    The blocks have the length that MODE SELECT has asked for last.
    """
    cdb = FormatUnit.unpack(command.cdb)
    order = FormatList()
    wanted = unit.format.wanted
    if cdb.format_data:
        try:
            order = FormatList.unpack(command.data_out, long=cdb.long_list)
        except ValueError:
            raise invalid_field_in_parameter_list(0) from None
        if len(order.pattern) > wanted.block_size:
            raise invalid_field_in_parameter_list(8 if cdb.long_list else 4)
    elif cdb.long_list or cdb.complete_list or cdb.defect_list_format:
        raise invalid_field_in_cdb(1, 5)
    unit.require_medium()
    unit.require_writable()
    pattern = order.pattern
    if any(pattern):
        block = (pattern * (wanted.block_size // len(pattern) + 1))[: wanted.block_size]
        steps: Callable[[], Steps] = lambda: _fill(unit, [_repeated(block)])  # noqa: E731
    else:
        steps = _discard_or(unit, [_repeated(bytes(wanted.block_size))])
    unit.format.begin()
    unit.operation.begin(
        Asc.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS,
        Asc.MEDIUM_FORMAT_CORRUPTED,
        lambda: _alone(unit, steps),
        lambda: unit.formatted(wanted, command.nexus),
    )
    if not order.immed:
        unit.operation.wait(command)


def _format_length(unit: BlockDevice, cdb: bytes) -> int:
    """As much as comes, up to what a pattern of one block can need: the CDB has no length."""
    if not FormatUnit.unpack(cdb).format_data:
        return 0
    return min(_LONGEST_FORMAT_LIST, 12 + unit.format.wanted.block_size)


BLOCK_SANITIZE_TABLE: Table = table_of(
    _sanitize_row("OVERWRITE", SanitizeOverwrite, _sanitize_overwrite),
    _sanitize_row("BLOCK ERASE", SanitizeBlockErase, _sanitize_block_erase),
    _sanitize_row("CRYPTOGRAPHIC ERASE", SanitizeCryptographicErase, _sanitize_cryptographic_erase),
    _sanitize_row("EXIT FAILURE MODE", SanitizeExitFailureMode, _sanitize_exit_failure_mode),
    Row(
        "FORMAT UNIT",
        FormatUnit.usage_without("format_protection"),
        _format_unit,
        data_out=_format_length,
        lane=Lane.DETACHED,
    ),
)
