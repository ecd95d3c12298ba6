"""A tape file as bytes by offset: what is skipped is located past, not read."""

from bisect import bisect_right

from serverfree.initiator.tape import Stop, Tape
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import SenseKey

_TRIES = 16  # blocks from the first on, one of which has to be readable


class Unreadable(Exception):
    """A block of the file cannot be read. `end` is where in the file the next one begins."""

    def __init__(self, block: int, end: int, why: str) -> None:
        super().__init__(f"block {block} cannot be read: {why}")
        self.end = end


class TapeArchive:
    """A file of `blocks` blocks from block `first` on, of the partition that the tape stands in.

    Blocks are all as long as the first, but for a shorter last one: then `tape_block` says how
    long, and any place can be gone to. In a file of blocks of different lengths (`tape_block` 0)
    all that lies before a place is read.
    """

    def __init__(self, tape: Tape, first: int, blocks: int, buffer: memoryview) -> None:
        self._tape, self.first, self.blocks = tape, first, blocks
        self._buffer = buffer
        self._stands_at: int | None = None
        self._held: tuple[int, bytes] = (-1, b"")
        # Of blocks of different lengths: where each begins that has been met, and the next one.
        self._starts: list[int] = []
        self.broken = ""
        """Why, where such a file had to be given up before its end."""
        self.tape_block = 0
        self.tape_block = self._uniform_length()

    def _uniform_length(self) -> int:
        """Return the length of the blocks if it looks as if they all had one, else 0."""
        lengths: set[int] = set()
        samples = [0, self.blocks // 2, self.blocks - 2]
        for number, index in enumerate([*samples, *range(1, _TRIES)]):
            whole = index == 0 or 0 < index < self.blocks - 1  # the last may be shorter
            if not whole or (lengths and number >= len(samples)):
                continue
            try:
                lengths.add(len(self._block(index)))
            except Unreadable as why:
                self.broken = self.broken or str(why)
        if lengths:
            self.broken = ""
        else:
            self.blocks = 0
        return lengths.pop() if len(lengths) == 1 else 0

    @property
    def length(self) -> int:
        """Bytes of the file. Where the last block cannot be read it counts as a whole one."""
        if not self.tape_block:
            self._measure(self.blocks)
            return self._starts[-1]
        try:
            last = len(self._block(self.blocks - 1))
        except Unreadable:
            last = self.tape_block
        return (self.blocks - 1) * self.tape_block + last

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from an offset, fewer at the end. Raises Unreadable."""
        parts = []
        while length > 0:
            index, start = self._find(offset)
            if index >= self.blocks:
                break
            block = self._block(index)
            if self.tape_block and len(block) != self.tape_block and index < self.blocks - 1:
                end = (index + 1) * self.tape_block
                raise Unreadable(
                    self.first + index,
                    end,
                    f"it has {len(block)} bytes, those before it {self.tape_block}",
                )
            part = block[offset - start : offset - start + length]
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _find(self, offset: int) -> tuple[int, int]:
        """Return in which block an offset lies, and where that begins."""
        if self.tape_block:
            index = offset // self.tape_block
            return index, index * self.tape_block
        while len(self._starts) <= self.blocks and (not self._starts or self._starts[-1] <= offset):
            self._measure(len(self._starts))
        index = bisect_right(self._starts, offset) - 1
        return index, self._starts[index]

    def _measure(self, blocks: int) -> None:
        """Know where the first so many blocks begin, and where they end."""
        if not self._starts:
            self._starts.append(0)
        while len(self._starts) <= min(blocks, self.blocks):
            index = len(self._starts) - 1
            try:
                block = self._block(index)
            except Unreadable as why:
                # How long it is nobody knows, so nothing behind it has a place.
                self.blocks, self.broken = index, f"{why}; what follows is not looked at"
                return
            self._starts.append(self._starts[-1] + len(block))

    def _block(self, index: int) -> bytes:
        """Return a block. Raises Unreadable for one that the drive cannot give."""
        if self._held[0] == index:
            return self._held[1]
        end = (index + 1) * self.tape_block
        try:
            if self._stands_at != index:
                self._stands_at = None
                self._tape.locate(self.first + index)
            self._stands_at = None
            data = self._tape.read_block(self._buffer)
        except CheckCondition as error:
            if error.sense.key is not SenseKey.MEDIUM_ERROR:
                raise
            raise Unreadable(self.first + index, end, str(error.sense)) from error
        except ValueError as error:  # longer than any block that the drive says it takes
            raise Unreadable(self.first + index, end, str(error)) from error
        if isinstance(data, Stop):
            raise Unreadable(self.first + index, end, f"there is {data.value}")
        self._stands_at = index + 1
        self._held = index, bytes(data)
        return self._held[1]
