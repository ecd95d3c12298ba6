"""From pieces of an archive to the EXTENDED COPY commands that put them on tape, and back: pure.

`plan_writing` and `plan_reading` say by which rules.
"""

from collections.abc import Iterable, Iterator

from serverfree.backup.pieces import Piece, ToDisk
from serverfree.backup.plan_frame import Check, Command, Frame
from serverfree.backup.plan_reading import Reader, verify
from serverfree.backup.plan_writing import Writer
from serverfree.initiator.copy_plan import Endpoint, PlanError
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.copy_segments import (
    DigestOfDestination,
    Locate,
    Segment,
    StreamToDigest,
    StreamToDiscard,
    WriteFilemarks,
)

__all__ = ["Check", "Command", "can_digest", "plan_backup", "plan_restore", "plan_verify"]

COMMAND_SIZE = 256 << 20
"""Bytes of data in a command: the grain of progress, of digests and of starting again."""
READ_THROUGH = 16 << 20
"""A gap on tape up to which reading on costs less than going there."""
DIGEST_LENGTH = 32


def can_digest(limits: OperatingParameters) -> bool:
    """Whether a copy manager knows the digests of this project (C0h and C1h)."""
    return {StreamToDigest.TYPE, DigestOfDestination.TYPE} <= set(limits.descriptor_types)


def plan_backup(
    pieces: Iterable[Piece],
    disk: Endpoint,
    tape: Endpoint,
    limits: OperatingParameters,
    tape_block: int,
    command_size: int = COMMAND_SIZE,
    digests: bool = False,
    filemarks: int = 1,
    begin: int = 0,
    more: bool = False,
) -> Iterator[Command]:
    """Yield the commands that write the pieces, one behind the other, where the tape stands.

    The last one pads its last tape block with zeros and writes filemarks. With `digests` each
    holds the SHA-256 of what it wrote, without that padding. Pieces are taken as they are needed;
    never more than a command is kept. The pieces begin at byte `begin` of their archive; of such
    that `more` will follow they are whole tape blocks, and nothing ends with them. Raises
    PlanError, at once or where the pieces demand what the copy manager cannot do.
    """
    if more:
        filemarks = 0
    needed: list[type[Segment]] = [WriteFilemarks] if filemarks else []
    if digests:
        needed.append(DigestOfDestination)
    frame = Frame(limits, tape_block, disk, tape, residue=tape_block - 1)
    frame.require(*needed)
    writer = Writer(frame, command_size, digests, filemarks, len(needed), begin)
    return writer.commands(pieces, more=more)


def plan_restore(
    wanted: Iterable[ToDisk],
    tape: Endpoint,
    disk: Endpoint,
    limits: OperatingParameters,
    tape_block: int,
    first_block: int,
    command_size: int = COMMAND_SIZE,
    read_through: int = READ_THROUGH,
) -> Iterator[Command]:
    """Yield the commands that put pieces of an archive onto a disk, to the byte.

    The archive begins at block `first_block` of the tape. `wanted` is best sorted by archive
    offset: the tape goes back for what is not. Raises PlanError.
    """
    frame = Frame(limits, tape_block, disk, tape)
    frame.require(Locate, StreamToDiscard)
    return Reader(frame, first_block, command_size, read_through).commands(wanted)


def plan_verify(
    ranges: Iterable[tuple[int, int]],
    tape: Endpoint,
    limits: OperatingParameters,
    tape_block: int,
    first_block: int,
    command_size: int = COMMAND_SIZE,
) -> Iterator[Check]:
    """Yield the commands that read ranges of an archive, (offset, length), and digest each.

    A command takes ranges until it has `command_size` bytes, at least one. Raises PlanError.
    """
    frame = Frame(limits, tape_block, None, tape)
    frame.require(Locate, StreamToDiscard, StreamToDigest)
    held = limits.held_data_limit // DIGEST_LENGTH
    if not held:
        raise PlanError("the copy manager holds no data for the application client")
    return verify(frame, first_block, command_size, held, ranges)
