"""A tape as one would have it in Python: a list of blocks and marks, and a position.

It walks its list object by object, as one would by hand, and knows nothing of logs, indexes or
generations.
"""

from dataclasses import dataclass, field

from serverfree.scsi.sense import Sense
from support.tape import OVERHEAD, sense

CAPACITY, BLOCK_LENGTH = 4000, 64
ENVELOPE = 4 + 12 + 16 + 16  # what encryption adds to a block: head, nonce, key check, tag
MARK = None
Answer = tuple[bytes, Sense | None]


@dataclass
class Model:
    """A tape as a list of blocks and marks, and the drive's position on it."""

    capacity: int = CAPACITY
    tape: list[bytes | None] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    at: int = 0
    encrypting: bool = False

    def used(self, end: int) -> int:
        return sum(
            len(each or b"") + OVERHEAD + ENVELOPE * sealed
            for each, sealed in zip(self.tape[:end], self.encrypted[:end], strict=True)
        )

    @property
    def warned(self) -> bool:
        return self.used(self.at) >= self.capacity - self.capacity // 16

    def read_variable(self, n: int, sili: bool, block_length: int) -> Answer:
        if n == 0:
            return b"", None
        if self.at == len(self.tape):
            return b"", sense(8, 0x0005, n, eom=self.warned)
        block = self.tape[self.at]
        self.at += 1
        if block is MARK:
            return b"", sense(0, 0x0001, n, filemark=True)
        wrong = sense(0, 0x0000, n - len(block), ili=True)
        if len(block) < n and not sili:
            return block, wrong
        if len(block) > n and not (sili and block_length == 0):
            return block[:n], wrong
        return block[:n], None

    def read_fixed(self, n: int) -> Answer:
        data = b""
        for done in range(n):
            left = n - done
            if self.at == len(self.tape):
                return data, sense(8, 0x0005, left, eom=self.warned)
            block = self.tape[self.at]
            self.at += 1
            if block is MARK:
                return data, sense(0, 0x0001, left, filemark=True)
            if len(block) != BLOCK_LENGTH:
                return data, sense(0, 0x0000, left, ili=True)
            data += block
        return data, None

    def read_reverse(self, n: int, sili: bool, block_length: int) -> Answer:
        """READ REVERSE of one block; its bytes come as READ gives them (BYTORD=1)."""
        if n == 0:
            return b"", None
        if self.at == 0:
            return b"", sense(0, 0x0004, n, eom=True)
        self.at -= 1
        block = self.tape[self.at]
        if block is MARK:
            return b"", sense(0, 0x0001, n, filemark=True)
        answer = self.read_variable(n, sili, block_length)
        self.at -= 1
        return answer

    def write(self, objects: list[bytes | None], unit: int) -> Answer:
        """Write objects; `unit` is what each counts for in INFORMATION."""
        if not objects:
            return b"", None
        for written, each in enumerate(objects):
            sealed = self.encrypting and each is not MARK
            size = len(each or b"") + OVERHEAD + ENVELOPE * sealed
            if self.used(self.at) + size > self.capacity:
                left = (len(objects) - written) * unit
                return b"", sense(0xD, 0x0002, left, eom=True)
            self.tape[self.at :], self.encrypted[self.at :] = [each], [sealed]
            self.at += 1
        return b"", sense(0, 0x0002, 0, eom=True) if self.warned else None

    def space_blocks(self, count: int) -> Answer:
        for done in range(count):
            if self.at == len(self.tape):
                return b"", sense(8, 0x0005, count - done, eom=self.warned)
            self.at += 1
            if self.tape[self.at - 1] is MARK:
                return b"", sense(0, 0x0001, count - done, filemark=True)
        for done in range(-count):
            if self.at == 0:
                return b"", sense(0, 0x0004, -count - done, eom=True)
            self.at -= 1
            if self.tape[self.at] is MARK:
                return b"", sense(0, 0x0001, -count - done, filemark=True)
        return b"", None

    def space_marks(self, count: int) -> Answer:
        left = abs(count)
        while left:
            if count > 0:
                if self.at == len(self.tape):
                    return b"", sense(8, 0x0005, left, eom=self.warned)
                self.at += 1
                left -= self.tape[self.at - 1] is MARK
            else:
                if self.at == 0:
                    return b"", sense(0, 0x0004, left, eom=True)
                self.at -= 1
                left -= self.tape[self.at] is MARK
        return b"", None

    def space_runs(self, count: int) -> Answer:
        """To where that many marks lie in a row, behind the last or before the first of them."""
        run = 0
        while count:
            end = len(self.tape) if count > 0 else 0
            if self.at == end:
                left = abs(count) - run
                if count > 0:
                    return b"", sense(8, 0x0005, left, eom=self.warned)
                return b"", sense(0, 0x0004, left, eom=True)
            self.at += 1 if count > 0 else -1
            passed = self.tape[self.at - 1 if count > 0 else self.at]
            run = run + 1 if passed is MARK else 0
            if run == abs(count):
                break
        return b"", None

    def locate(self, block: int) -> Answer:
        self.at = min(block, len(self.tape))
        if block > len(self.tape):
            return b"", sense(8, 0x0005, None, eom=self.warned)
        return b"", None

    def locate_file(self, file: int) -> Answer:
        self.at = 0
        while file and self.at < len(self.tape):
            file -= self.tape[self.at] is MARK
            self.at += 1
        return (b"", sense(8, 0x0005, None, eom=self.warned)) if file else (b"", None)
