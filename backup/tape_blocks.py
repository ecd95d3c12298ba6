"""Blocks of an archive off a tape, by number; what cannot be read is told, not raised."""

from serverfree.backup.copying import one_line
from serverfree.initiator.tape import BlockTooLong, Stop, Tape
from serverfree.scsi.errors import CheckCondition


class TapeBlocks:
    """Tape blocks of an archive by number; in order they are read one behind the other."""

    def __init__(self, tape: Tape, first_block: int, tape_block: int) -> None:
        self._tape, self._first = tape, first_block
        self._buffer = memoryview(bytearray(tape_block))
        self._held: tuple[int, memoryview] | None = None
        self._next: int | None = None

    def read(self, block: int) -> memoryview | str:
        """Return a block, good until the next is asked for, or why there is none."""
        if self._held is not None and self._held[0] == block:
            return self._held[1]
        self._held = None
        try:
            if block != self._next:
                self._tape.locate(self._first + block)
            self._next = None
            got = self._tape.read_block(self._buffer)
        except (CheckCondition, BlockTooLong) as error:
            return f"block {self._first + block} cannot be read: {one_line(error)}"
        if isinstance(got, Stop):
            return f"{got.value} where block {self._first + block} should be"
        self._next = block + 1
        self._held = block, got
        return got
