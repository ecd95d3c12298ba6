"""A model disk and a model tape behind the device seam.

They read CDBs byte by byte as the standards draw them and build their sense data by hand, so that
what they say does not come from the code that they judge. Faults are scripted by operation code
and count; every CDB is kept in `log`.
"""

from collections import deque
from collections.abc import Sequence

from serverfree.scsi.device import Buffer, Result
from serverfree.scsi.sense import Sense
from serverfree.scsi.status import Status

FILEMARK = None  # a filemark among a tape's blocks

TEST_UNIT_READY, INQUIRY, MODE_SENSE_6 = 0x00, 0x12, 0x1A
READ_6, WRITE_6, WRITE_FILEMARKS_6, LOCATE_10 = 0x08, 0x0A, 0x10, 0x2B
_CONTROL_6, _NACA, _FIRST_OF_10 = 5, 0x04, 0x20
READ_CAPACITY_10, READ_16, WRITE_16, READ_CAPACITY_16 = 0x25, 0x88, 0x8A, 0x9E


def sense_bytes(
    key: int,
    code: int,
    *,
    information: int | None = None,
    filemark: bool = False,
    eom: bool = False,
    ili: bool = False,
) -> bytes:
    """Fixed format sense data, 18 bytes (SPC-4 4.5.3)."""
    raw = bytearray(18)
    raw[0] = 0x70 | (0x80 if information is not None else 0)
    raw[2] = key | filemark << 7 | eom << 6 | ili << 5
    raw[3:7] = ((information or 0) & 0xFFFFFFFF).to_bytes(4, "big")
    raw[7] = 10
    raw[12:14] = code.to_bytes(2, "big")
    return bytes(raw)


def check_condition(raw: bytes, transferred: int = 0) -> Result:
    """CHECK CONDITION with this sense data."""
    return Result(Status.CHECK_CONDITION, Sense.unpack(raw), transferred)


UNIT_ATTENTION = check_condition(sense_bytes(6, 0x2900))


class CarrierLost(OSError):
    """The way to the device is gone."""


class _Pending:
    def __init__(
        self,
        device: "FakeDevice",
        cdb: bytes,
        out: Buffer | Sequence[Buffer],
        into: memoryview | None,
    ) -> None:
        self.device, self.cdb, self.out, self.into = device, cdb, out, into
        self.result: Result | None = None

    def run(self) -> None:
        buffers = [self.out] if isinstance(self.out, bytes | bytearray | memoryview) else self.out
        data = b"".join(bytes(one) for one in buffers)
        self.result = self.device._answer(self.cdb, data, self.into)

    def wait(self, timeout: float | None = None) -> Result:
        while self.result is None:
            self.device._queue.popleft().run()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class FakeDevice:
    """What disk and tape share. `lazy` runs a command only when it, or a later one, is waited for:

    a buffer that changes hands too early shows as wrong data.
    """

    device_type = 0

    def __init__(self, *, lazy: bool = False) -> None:
        self.facts = None
        self.identity = id(self)
        self.lazy = lazy
        self.log: list[bytes] = []
        self.closed: list[bool] = []
        self.attentions = 0
        self.qualifier = 0
        self.faults: dict[tuple[int, int], Result | Exception] = {}
        self._counts: dict[int, int] = {}
        self._queue: deque[_Pending] = deque()
        self.normal_aca = False  # a command with NACA that fails stops the others (SAM-5 5.9)
        self.clears_aca = True
        self.faulted = False
        self.under_way = 0
        self.deepest = 0

    def fail(self, opcode: int, nth: int, answer: Result | Exception) -> None:
        """Let the nth command (from 0) with this operation code end so, and do nothing."""
        self.faults[opcode, nth] = answer

    def clear_allegiance(self) -> bool:
        """ABORT TASK SET, CLEAR ACA (SAM-5 7.3, 7.5)."""
        while self._queue:
            self._queue.popleft().result = Result(Status.TASK_ABORTED)
        self.faulted = not self.clears_aca
        return self.clears_aca

    def submit(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> _Pending:
        self.log.append(cdb)
        pending = _Pending(self, cdb, data_out, data_in)
        self._queue.append(pending)
        self.deepest = max(self.deepest, len(self._queue))
        if not self.lazy:
            while self._queue:
                self._queue.popleft().run()
        return pending

    def close(self, *, broken: bool = False) -> None:
        self.closed.append(broken)

    def _answer(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result | Exception:
        if self.faulted:
            return Result(Status.ACA_ACTIVE)
        answer = self._judge(cdb, out, into)
        failed = isinstance(answer, Result) and answer.status is Status.CHECK_CONDITION
        if failed and cdb[_CONTROL_6] & _NACA and cdb[0] < _FIRST_OF_10:
            assert self.normal_aca, "NACA where INQUIRY does not say NORMACA"
            self.faulted = True
        return answer

    def _judge(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result | Exception:
        nth = self._counts.get(cdb[0], 0)
        self._counts[cdb[0]] = nth + 1
        fault = self.faults.get((cdb[0], nth))
        if fault is not None:
            return fault
        if self.attentions and cdb[0] != INQUIRY:
            self.attentions -= 1
            return UNIT_ATTENTION
        if cdb[0] == TEST_UNIT_READY:
            return Result(Status.GOOD)
        if cdb[0] == INQUIRY and not cdb[1] & 1:
            aca = 0x20 if self.normal_aca else 0
            kind = self.qualifier << 5 | self.device_type
            return give(into, bytes([kind, 0, 6, aca | 2, 91]))
        return self.command(cdb, out, into)

    def command(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result:
        raise NotImplementedError


def give(into: memoryview | None, data: bytes) -> Result:
    """GOOD with as much of the data as there is room for."""
    assert into is not None
    size = min(len(data), len(into))
    into[:size] = data[:size]
    return Result(Status.GOOD, transferred=size)


INVALID_OPCODE = sense_bytes(5, 0x2000)
INVALID_FIELD = sense_bytes(5, 0x2400)


class FakeDisk(FakeDevice):
    """A disk of `data`; `most` blocks a command, 0 for no limit."""

    def __init__(
        self, data: bytes, block_length: int = 512, *, most: int = 0, lazy: bool = False
    ) -> None:
        super().__init__(lazy=lazy)
        self.data = bytearray(data)
        self.block_length = block_length
        self.most = most

    def command(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result:
        opcode = cdb[0]
        if opcode == READ_CAPACITY_16 and cdb[1] & 0x1F == 0x10:
            last = len(self.data) // self.block_length - 1
            return give(into, last.to_bytes(8, "big") + self.block_length.to_bytes(4, "big"))
        if opcode == INQUIRY and cdb[2] == 0xB0:
            page = bytearray(64)
            page[0:4] = bytes([0, 0xB0, 0, 60])
            page[8:12] = self.most.to_bytes(4, "big")
            return give(into, bytes(page))
        if opcode in (READ_16, WRITE_16):
            return self.transfer(cdb, out, into)
        return check_condition(INVALID_OPCODE)

    def transfer(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result:
        start = int.from_bytes(cdb[2:10], "big") * self.block_length
        blocks = int.from_bytes(cdb[10:14], "big")
        size = blocks * self.block_length
        if start + size > len(self.data):
            return check_condition(sense_bytes(5, 0x2100))
        if self.most and blocks > self.most:
            return check_condition(INVALID_FIELD)
        if cdb[0] == READ_16:
            return give(into, bytes(self.data[start : start + size]))
        assert len(out) == size, f"WRITE(16) of {size} bytes came with {len(out)}"
        self.data[start : start + size] = out
        return Result(Status.GOOD)


class FakeTape(FakeDevice):
    """A tape of `blocks` (bytes, or FILEMARK), at `position`.

    With `early_warning` writes end with EOM once so many bytes are on it, with `capacity` they do
    not fit any more. `block_length` is that of the mode parameters.
    """

    device_type = 1

    def __init__(
        self,
        blocks: Sequence[bytes | None] = (),
        block_length: int = 0,
        *,
        early_warning: int | None = None,
        capacity: int | None = None,
        lazy: bool = False,
    ) -> None:
        super().__init__(lazy=lazy)
        self.blocks: list[bytes | None] = list(blocks)
        self.position = 0
        self.block_length = block_length
        self.early_warning = early_warning
        self.capacity = capacity

    @property
    def used(self) -> int:
        return sum(len(block) for block in self.blocks if block is not None)

    def command(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result:
        opcode, length = cdb[0], int.from_bytes(cdb[2:5], "big")
        if opcode == MODE_SENSE_6:
            header = bytes([11, 0, 0, 8])
            return give(into, header + bytes(5) + self.block_length.to_bytes(3, "big"))
        if opcode == READ_6:
            assert not cdb[1] & 2, "SILI is zero in a copy (SPC-4 6.4.5.4)"
            return self.read(bool(cdb[1] & 1), length, into)
        if opcode == WRITE_6:
            return self.write(bool(cdb[1] & 1), length, out)
        if opcode == WRITE_FILEMARKS_6:
            self.put([FILEMARK] * length)
            return self.warned(0)
        if opcode == LOCATE_10:
            wanted = int.from_bytes(cdb[3:7], "big")
            self.position = min(wanted, len(self.blocks))
            if wanted > len(self.blocks):
                return check_condition(sense_bytes(8, 0x0005))
            return Result(Status.GOOD)
        return check_condition(INVALID_OPCODE)

    def read(self, fixed: bool, length: int, into: memoryview | None) -> Result:
        assert into is not None
        wanted = [self.block_length] * length if fixed else [length]
        got = b""
        for done, size in enumerate(wanted):
            left = len(wanted) - done if fixed else length
            if self.position == len(self.blocks):
                into[: len(got)] = got
                return check_condition(sense_bytes(8, 0x0005, information=left), len(got))
            block = self.blocks[self.position]
            self.position += 1
            if block is FILEMARK:
                into[: len(got)] = got
                raw = sense_bytes(0, 0x0001, filemark=True, information=left)
                return check_condition(raw, len(got))
            if len(block) != size:
                got += block[:size]
                into[: len(got)] = got
                wrong = left if fixed else size - len(block)
                raw = sense_bytes(0, 0, ili=True, information=wrong)
                return check_condition(raw, len(got))
            got += block
        return give(into, got)

    def write(self, fixed: bool, length: int, out: bytes) -> Result:
        size = self.block_length if fixed else length
        pieces = [out[at : at + size] for at in range(0, len(out), size)]
        assert len(pieces) == (length if fixed else 1), f"{len(out)} bytes for {length}"
        for done, piece in enumerate(pieces):
            if self.capacity is not None and self.used + len(piece) > self.capacity:
                left = length - done if fixed else length
                return check_condition(sense_bytes(13, 0x0002, eom=True, information=left))
            self.put([piece])
        return self.warned(0)

    def put(self, blocks: Sequence[bytes | None]) -> None:
        self.blocks[self.position :] = blocks
        self.position = len(self.blocks)

    def warned(self, left: int) -> Result:
        if self.early_warning is not None and self.used > self.early_warning:
            return check_condition(sense_bytes(0, 0x0002, eom=True, information=left))
        return Result(Status.GOOD)
