"""Whether a backup is in the drive: on this cartridge, and still where the catalog says.

A cartridge can be written over by anyone. What its memory says of itself stays the same then, so
what begins at the place of a backup is looked at before anything of it is believed.
"""

from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from serverfree.backup.archive.member import ArchiveError
from serverfree.backup.archive.pax import BLOCK
from serverfree.backup.archive.read import ArchiveReader
from serverfree.backup.catalog.facts import Backup, BackupFacts
from serverfree.backup.errors import BackupError
from serverfree.backup.tape_file import cartridge_serial
from serverfree.initiator.tape import BlockTooLong, Stop, Tape
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import SenseKey


class WrongCartridge(BackupError):
    """The backup is on another cartridge than the drive holds, or has been written over."""


def check_cartridge(tape: Tape, backup: Backup) -> None:
    """Raise WrongCartridge unless a backup is where it should be. The tape is moved.

    A beginning that cannot be read proves nothing: what lies behind it may be had all the same.
    """
    wanted, loaded = backup.facts.medium_serial, cartridge_serial(tape)
    if wanted and loaded and wanted != loaded:
        raise WrongCartridge(
            f"backup {backup.id} is on cartridge {wanted}; cartridge {loaded} is in the drive: "
            "nothing was restored or verified"
        )
    try:
        there = _what_begins_at(tape, backup.facts)
    except CheckCondition as error:
        # Blank: the end of data lies before the place.
        if error.sense.key is SenseKey.MEDIUM_ERROR:
            return
        if error.sense.key is not SenseKey.BLANK_CHECK:
            raise
        there = "nothing"
    if there not in ("", backup.uuid):
        what = f"backup {there[:8]}" if _is_uuid(there) else there
        raise WrongCartridge(
            f"backup {backup.id} is not on the cartridge any more: {what} is where it began; "
            "nothing was restored or verified"
        )


def uuid_said(said: dict[str, Any] | None) -> str:
    """Return the UUID in the facts that an archive of ours begins with, empty without one."""
    try:
        return str(UUID((said or {})["uuid"]))
    except (KeyError, ValueError, TypeError, AttributeError):
        return ""


def foreign_uuid(serial: str, partition: int, first_block: int, first: bytes) -> str:
    """Return the name of an archive that has none: the same whenever its cartridge is scanned.

    `first` are its first 512 bytes.
    """
    seed = (serial, partition, first_block)
    return str(uuid5(NAMESPACE_OID, f"{seed} {sha256(first).hexdigest()}"))


def _what_begins_at(tape: Tape, facts: BackupFacts) -> str:
    """Return the UUID of the archive that begins at a place, words where there is none, or
    nothing where there is no telling.
    """
    tape.locate(facts.first_block, facts.partition)
    buffer = memoryview(bytearray(facts.tape_block))
    held = bytearray()

    def read(offset: int, length: int) -> bytes:
        while len(held) < offset + length:
            block = tape.read_block(buffer)
            if isinstance(block, Stop):
                break
            held.extend(block)
        return bytes(held[offset : offset + length])

    reader = ArchiveReader(read)
    try:
        next(reader.members(), None)
    except (ArchiveError, BlockTooLong):
        if reader.facts is None:
            return "something else"
    if reader.facts is not None:
        return uuid_said(reader.facts)
    first = bytes(held[:BLOCK])
    if not first:
        return "no archive"
    return foreign_uuid(facts.medium_serial, facts.partition, facts.first_block, first)


def _is_uuid(text: str) -> bool:
    return bool(uuid_said({"uuid": text}))
