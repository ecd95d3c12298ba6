"""One backup is one tape file: where it begins, how it ends, what is done when it cannot end.

Whatever happens, the tape is left so that the next backup can be appended: the data on it ends
with a filemark. A file that was not finished is closed by one too; what stood before it is never
touched.
"""

import contextlib
from dataclasses import dataclass

from serverfree.backup.errors import BackupError
from serverfree.initiator.tape import Position, Stop, Tape
from serverfree.scsi.attributes import LIST_HEADER, AttributeId, unpack_values
from serverfree.scsi.cdb.attribute import ReadAttributeValues
from serverfree.scsi.errors import CheckCondition, ScsiError
from serverfree.scsi.sense import SenseKey

_ATTRIBUTES = 4096


class TapeUnusable(BackupError):
    """No backup can be written to this tape as it is; the text says what to do."""


@dataclass(frozen=True, slots=True)
class TapePlace:
    """Where a tape file begins: its first block as LOCATE counts, and how many files precede it.

    `file` is None where the drive does not count. `warnings` say what had to be done first.
    """

    partition: int
    first_block: int
    file: int | None
    warnings: tuple[str, ...] = ()


def cartridge_serial(tape: Tape) -> str:
    """Return the medium's serial number from its memory, empty where it does not tell.

    Without one the bar code is what the cartridge is known by.
    """
    for identifier in (AttributeId.MEDIUM_SERIAL_NUMBER, AttributeId.BARCODE):
        with contextlib.suppress(CheckCondition, ValueError):
            cdb = ReadAttributeValues(first=identifier, allocation_length=_ATTRIBUTES)
            raw = tape.fetch(cdb, _ATTRIBUTES)
            whole = LIST_HEADER + int.from_bytes(raw[:LIST_HEADER], "big")
            for _, attribute in unpack_values(raw[:whole]):
                if attribute.identifier == identifier:
                    text = attribute.value.decode("ascii", "replace").strip(" \0")
                    if text:
                        return text
    return ""


def check_tape(tape: Tape, tape_block: int) -> None:
    """Hold the tape against what is to be written; it is not moved. Raises TapeUnusable."""
    try:
        status = tape.status()
    except ScsiError as error:
        raise TapeUnusable(f"the drive does not answer: {error}") from error
    if not status.ready:
        raise TapeUnusable(f"the drive is not ready: {status.not_ready}")
    if status.write_protected:
        raise TapeUnusable(
            "the cartridge is write protected: take off the protection, or change it"
        )
    if not status.minimum_block <= tape_block <= (status.maximum_block or tape_block):
        raise TapeUnusable(
            f"the drive takes blocks of {status.minimum_block} to {status.maximum_block} bytes, "
            f"not of {tape_block}"
        )


def begin_file(tape: Tape, *, partition: int | None = None, overwrite: bool = False) -> TapePlace:
    """Move the tape to where a new file begins and return the place.

    That is the end of data, after a filemark; a file that was left unfinished there is closed by
    one first. With `overwrite` it is the beginning: all that is on the partition is lost as soon
    as something is written.
    """
    if partition is not None:
        tape.locate(0, partition)
    if overwrite:
        if partition is None:
            tape.rewind()
        return _place(tape.position())
    warnings = []
    tape.end_of_data()
    if not _ends_with_filemark(tape):
        tape.end_of_data()
        tape.write_filemarks()
        warnings.append(
            f"the last file on the tape was not finished: closed by a filemark at block "
            f"{tape.position().block - 1}"
        )
    return _place(tape.position(), *warnings)


def _ends_with_filemark(tape: Tape) -> bool:
    """Look at what stands before the end of data, and go back there if it is a filemark."""
    if tape.position().beginning:
        return True  # a blank tape
    if tape.space_blocks(-1) is not Stop.FILEMARK:
        return False
    tape.space_filemarks(1)
    return True


def _place(position: Position, *warnings: str) -> TapePlace:
    if position.early_warning:
        raise TapeUnusable(
            f"the cartridge is full: its data ends at block {position.block}, near the end of the "
            "tape; load another one, or say --overwrite-tape"
        )
    return TapePlace(position.partition, position.block, position.file, warnings)


def expect_position(tape: Tape, place: TapePlace, block: int) -> None:
    """Hold the tape's position against the planned one. Raises TapeUnusable."""
    now = tape.position()
    if (now.partition, now.block) != (place.partition, block):
        raise TapeUnusable(
            f"the tape stands at block {now.block} of partition {now.partition} where it should "
            f"stand at block {block} of partition {place.partition}: something else moves it"
        )


def close_unfinished(tape: Tape, place: TapePlace) -> str:
    """Leave the tape appendable after a failure; return what was done, for the report.

    To be called only when something may have been written. What has been is closed by a filemark;
    on a full tape, where no filemark fits, it is taken back.
    """
    tape.settle()
    if place.partition != tape.position().partition:
        tape.locate(0, place.partition)
    tape.end_of_data()
    written = tape.position().block - place.first_block
    if written <= 0:
        return "nothing was written to the tape"
    try:
        tape.write_filemarks()
    except CheckCondition as error:
        if error.sense.key is not SenseKey.VOLUME_OVERFLOW:
            raise
        tape.locate(place.first_block)
        tape.erase()
        return f"the {written} blocks that were written are taken back: the tape is full"
    return (
        f"the {written} blocks from block {place.first_block} on are no backup; they are closed "
        f"by a filemark, and the next backup goes behind them"
    )
