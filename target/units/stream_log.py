"""LOG SENSE and LOG SELECT of a tape drive (SPC-4 7.3, SSC-4 8.3).

Pages 02h, 03h, 0Ch and 32h count since the medium was loaded or LOG SELECT reset them; 17h and
30h tell the life of the cartridge, 14h that of the drive. 30h, 31h, 32h and 37h are laid out as on
IBM LTO drives, which sg_logs and LTFS know. A figure that a file does not have (a temperature) is
given as not available.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, cast

from serverfree.scsi.attributes import AttributeId
from serverfree.scsi.device import Buffer
from serverfree.scsi.log import BINARY, COUNTER, LogParameter, counter
from serverfree.scsi.opcodes import OperationCode
from serverfree.target.backstore.cartridge_memory import Life
from serverfree.target.units.base import VENDOR, Row, merge_tables, table_of
from serverfree.target.units.command import Command, Lane, Reply
from serverfree.target.units.logs import LOG_TABLE
from serverfree.target.units.stream_format import medium_serial

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit
    from serverfree.target.units.stream_medium import Medium

_MB, _MIB = 1_000_000, 1 << 20
_ALERTS = 64
_NOT_AVAILABLE = 0xFF

Parameters = Sequence[LogParameter]


def _number(code: int, value: int, length: int) -> LogParameter:
    return LogParameter(code, min(value, 256**length - 1).to_bytes(length, "big"), COUNTER)


def _flag(code: int, on: bool) -> LogParameter:
    return LogParameter(code, bytes((on,)), BINARY)


def _since(unit: StreamUnit) -> Life:
    """What was done since the medium was loaded, or the counters were reset."""
    medium = unit.medium
    if medium is None:
        return Life()
    return medium.life.since(medium.log_base)


def _write_errors(unit: StreamUnit) -> Parameters:
    life = _since(unit)
    return [counter(code, 0) for code in range(5)] + [
        counter(5, life.bytes_written),
        counter(6, life.write_errors),
    ]


def _read_errors(unit: StreamUnit) -> Parameters:
    life = _since(unit)
    return [counter(code, 0) for code in range(5)] + [
        counter(5, life.bytes_read),
        counter(6, life.read_errors),
    ]


def _sequential_access(unit: StreamUnit) -> Parameters:
    life = _since(unit)
    found = [
        counter(0, life.bytes_written),
        counter(1, life.stored_written),
        counter(2, life.stored_read),
        counter(3, life.bytes_read),
    ]
    if unit.medium:
        partition = unit.medium.partition
        found += [
            counter(4, partition.used // _MB),
            counter(5, partition.early_warning // _MB),
            counter(6, (partition.capacity - partition.early_warning) // _MB),
            counter(7, partition.used_at(unit.medium.block) // _MB),
            counter(8, partition.unsynced[1] // _MB),
        ]
    return [*found, counter(0x100, 0)]  # cleaning is not required


def _temperature(unit: StreamUnit) -> Parameters:
    return [LogParameter(0, bytes((0, _NOT_AVAILABLE)))]


def _device_status(unit: StreamUnit) -> Parameters:
    """DT device status (ADC-3 6.1.2): very high frequency data, and how often to ask."""
    medium = unit.medium
    protected = medium is not None and medium.cartridge.write_protected
    # PAMR, CMPR, WRTP, DINIT; INXTN clear, MPRSNT, MSTD, MTHRD, MOUNTED
    first = bool(unit.preventing) << 7 | unit.modes.compression << 4 | protected << 3 | 1
    second = 0b0001_0111 if medium else 0b0001_0100 if unit.held else 0
    tape_alert = bool(unit.alerts)
    return [
        LogParameter(0, bytes((first, second, 0, tape_alert))),
        LogParameter(1, (100).to_bytes(2, "big")),  # milliseconds
    ]


def _alert_bits(unit: StreamUnit) -> Parameters:
    bits = sum(1 << (_ALERTS - flag) for flag in unit.alerts)
    return [LogParameter(0, bits.to_bytes(8, "big"))]


def _alerts(unit: StreamUnit) -> Parameters:
    return [_flag(flag, flag in unit.alerts) for flag in range(1, _ALERTS + 1)]


def _device_statistics(unit: StreamUnit) -> Parameters:
    hours = int(time.monotonic() - unit.started) // 3600
    return [
        counter(0x00, unit.loads),
        counter(0x01, 0),  # cleanings
        counter(0x02, hours),
        counter(0x0D, unit.loads),
        counter(0x0E, unit.hard_write_errors),
        counter(0x0F, unit.hard_read_errors),
        LogParameter(0x40, unit.serial.encode().ljust(16)),
        LogParameter(0x41, unit.serial.encode().ljust(16)),
        _flag(0x80, bool(unit.preventing)),
        _flag(0x81, False),
    ]


def _records(code: int, values: Sequence[int]) -> LogParameter:
    """A value for each partition (SSC-4 8.3.7.2): length, partition, megabytes."""
    return LogParameter(
        code,
        b"".join(
            bytes((7, 0)) + number.to_bytes(2, "big") + min(value, 0xFFFFFFFE).to_bytes(4, "big")
            for number, value in enumerate(values)
        ),
    )


def _barcode(medium: Medium) -> bytes:
    """The barcode that a host has written into the memory, or blanks."""
    written = medium.cartridge.memory.attributes.get((0, AttributeId.BARCODE))
    return (written.value if written else b"").ljust(32)


def _volume_statistics(unit: StreamUnit) -> Parameters:
    medium = unit.medium
    if medium is None:
        return [_flag(0, False)]
    cartridge, life = medium.cartridge, medium.life
    last, partitions = cartridge.memory.last_load, cartridge.partitions
    return [
        _flag(0x00, True),
        counter(0x01, life.loads),
        counter(0x02, life.blocks_written),
        counter(0x03, 0),
        counter(0x04, life.write_errors),
        counter(0x07, life.blocks_read),
        counter(0x08, 0),
        counter(0x09, life.read_errors),
        counter(0x0C, last.write_errors),
        counter(0x0D, last.read_errors),
        counter(0x0E, last.bytes_written // _MB),
        counter(0x0F, last.bytes_read // _MB),
        counter(0x10, life.bytes_written // _MB),
        counter(0x11, life.bytes_read // _MB),
        counter(0x16, cartridge.usable // _MB),
        counter(0x17, sum(each.used for each in partitions) // _MB),
        LogParameter(0x40, medium_serial(medium).encode()),
        LogParameter(0x42, _barcode(medium)),
        LogParameter(0x43, VENDOR.encode().ljust(8)),
        _flag(0x80, cartridge.write_protected),
        _flag(0x81, cartridge.worm),
        _flag(0x82, False),
        _records(0x202, [each.capacity // _MB for each in partitions]),
        _records(0x203, [each.used // _MB for each in partitions]),
        _records(0x204, [each.remaining // _MB for each in partitions]),
    ]


def _tape_usage(unit: StreamUnit) -> Parameters:
    life = unit.medium.life if unit.medium else Life()
    return [
        _number(1, life.loads, 4),
        _number(2, life.blocks_written, 8),
        _number(3, 0, 4),
        _number(4, life.write_errors, 2),
        _number(5, 0, 2),
        _number(6, 0, 2),
        _number(7, life.blocks_read, 8),
        _number(8, 0, 4),
        _number(9, life.read_errors, 2),
        _number(10, 0, 2),
        _number(11, 0, 2),
    ]


def _tape_capacity(unit: StreamUnit) -> Parameters:
    """Remaining and whole capacity of the first partition, then of the second, in MiB."""
    partitions = unit.medium.cartridge.partitions[:2] if unit.medium else []
    remaining = [each.remaining // _MIB for each in partitions] + [0, 0]
    maximum = [each.capacity // _MIB for each in partitions] + [0, 0]
    return [
        _number(code, value, 4)
        for code, value in enumerate((*remaining[:2], *maximum[:2]), start=1)
    ]


def _ratio(plain: int, stored: int) -> int:
    return plain * 100 // stored if stored else 100


def _data_compression(unit: StreamUnit) -> Parameters:
    life = _since(unit)
    found = [
        _number(0, _ratio(life.bytes_read, life.stored_read), 2),
        _number(1, _ratio(life.bytes_written, life.stored_written), 2),
    ]
    amounts = (life.bytes_read, life.stored_read, life.bytes_written, life.stored_written)
    for index, amount in enumerate(amounts):
        found += [_number(2 + 2 * index, amount // _MB, 4), _number(3 + 2 * index, amount % _MB, 4)]
    return found


_BEST, _UNKNOWN = 1, 0


def _performance(unit: StreamUnit) -> Parameters:
    """Parameter 0001h alone, medium efficiency, which LTFS asks for: 1 is best, 0 unknown.

    There is no tape to wear. What has never failed is at its best; of the rest nothing is known.
    """
    if unit.medium is None:
        return [LogParameter(1, bytes((_UNKNOWN,)), BINARY)]
    life = unit.medium.life
    failed = life.read_errors or life.write_errors
    return [LogParameter(1, bytes((_UNKNOWN if failed else _BEST,)), BINARY)]


_PAGES: dict[int, Callable[[StreamUnit], Parameters]] = {
    0x02: _write_errors,
    0x03: _read_errors,
    0x0C: _sequential_access,
    0x0D: _temperature,
    0x11: _device_status,
    0x12: _alert_bits,
    0x14: _device_statistics,
    0x17: _volume_statistics,
    0x2E: _alerts,
    0x30: _tape_usage,
    0x31: _tape_capacity,
    0x32: _data_compression,
    0x37: _performance,
}
_ALERT_PAGE = 0x2E


def log_pages(unit: StreamUnit) -> dict[int, Parameters]:
    """Every log page."""
    with unit.lock:
        return {code: page(unit) for code, page in _PAGES.items()}


def reset_logs(unit: StreamUnit) -> None:
    """Count from zero again."""
    with unit.lock:
        if unit.medium:
            unit.medium.log_base = Life(**asdict(unit.medium.life))


def _log_sense(unit: StreamUnit, command: Command) -> Reply | Buffer | None:
    """LOG SENSE as of every unit; but page 2Eh tells of a TapeAlert flag once."""
    outcome = _LOG_SENSE.run(unit, command)
    if command.cdb[2] & 0x3F == _ALERT_PAGE:
        unit.alerts.clear()
    return outcome


_LOG_SENSE = cast(Row, LOG_TABLE[OperationCode.LOG_SENSE])
STREAM_LOG_TABLE = merge_tables(
    LOG_TABLE, table_of(replace(_LOG_SENSE, run=_log_sense, lane=Lane.QUEUED))
)
