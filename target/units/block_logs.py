"""The log pages of a disk, made of what it has counted (SPC-4 7.3, SBC-4 6.4)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from serverfree.scsi.log import LogParameter, counter

if TYPE_CHECKING:
    from serverfree.target.units.block_device import BlockDevice

_NO_THERMOMETER = 0xFF
_SELF_TESTS = 20
_TOTAL_BYTES, _UNCORRECTED = 0x0005, 0x0006
_CORRECTED = range(0x0005)  # five ways of correcting, none of which a file needs


def _errors(bytes_processed: int, uncorrected: int) -> Sequence[LogParameter]:
    """An error counter page (7.3.5)."""
    return [
        *(counter(code, 0) for code in _CORRECTED),
        counter(_TOTAL_BYTES, bytes_processed),
        counter(_UNCORRECTED, uncorrected),
    ]


def block_log_pages(unit: "BlockDevice") -> dict[int, Sequence[LogParameter]]:
    """The log pages by page code, without page 00h."""
    performance = b"".join(
        value.to_bytes(8, "big")
        for value in (
            unit.read_commands,
            unit.write_commands,
            unit.write_bytes >> unit.shift,
            unit.read_bytes >> unit.shift,
            *(0, 0, 0, 0),  # processing intervals: not measured
        )
    )
    return {
        0x02: _errors(unit.write_bytes, unit.write_errors),
        0x03: _errors(unit.read_bytes, unit.read_errors),
        0x05: _errors(unit.verify_bytes, unit.verify_errors),
        0x0D: [LogParameter(code, bytes((0, _NO_THERMOMETER))) for code in (0x0000, 0x0001)],
        0x10: [
            LogParameter(code, result)
            for code, result in enumerate(unit.self_tests.results(_SELF_TESTS), 1)
        ],
        0x11: [LogParameter(0x0001, bytes(4))],  # endurance used: what a file does not know of
        0x15: [LogParameter(0x0000, unit.minutes_on().to_bytes(4, "big") + bytes(8))],
        0x19: [
            LogParameter(0x0001, performance),
            LogParameter(0x0002, bytes(8)),  # idle time: not measured
            LogParameter(0x0003, bytes.fromhex("00000003 00000001")),  # in intervals of 10^-3 s
        ],
        0x2F: [LogParameter(0x0000, bytes((0, 0, _NO_THERMOMETER, 0)))],
    }
