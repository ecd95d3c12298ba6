"""EXTENDED COPY as SPC-4 5.17.7.2 tells it, played with byte strings: slow, plain, independent.

Media are plain Python values; every read is one whole block, every write too. It shares no code
with the data mover, not even the segment classes: a segment is a tuple as the tests write it.

    ("00", disk, lba, blocks, tape, unit, cat)      block to stream
    ("01", tape, unit, disk, lba, blocks, cat)      stream to block
    ("02", disk, lba, blocks, disk, lba, cat, dc)   block to block
    ("04", data, tape, unit, cat)                   inline to stream
    ("03", tape, unit, tape, unit, count, cat)      stream to stream
    ("06", tape, unit, count, cat)                  stream to discard
    ("08", disk, at, count, tape, unit, cat)        bytes of a block device to stream
    ("09", tape, unit, disk, at, count, cat)        stream to bytes of a block device
    ("0a", disk, at, count, disk, at, cat)          bytes to bytes
    ("10", tape, count)                             filemarks
    ("12", tape, block)                             locate
    ("16", disk, lba, blocks, disk, lba)            block image
"""

from dataclasses import dataclass, field


class Inexact(Exception):
    """COPY ABORTED, UNEXPECTED INEXACT SEGMENT."""


@dataclass
class ModelDisk:
    content: bytes
    block: int
    pad: bool = False

    def read(self, lba: int) -> bytes:
        piece = self.content[lba * self.block : (lba + 1) * self.block]
        assert len(piece) == self.block, "the model is only asked for blocks that exist"
        return piece

    def write(self, lba: int, data: bytes) -> None:
        assert len(data) == self.block
        start, end = lba * self.block, (lba + 1) * self.block
        assert end <= len(self.content), "the model is only asked for blocks that exist"
        self.content = self.content[:start] + data + self.content[end:]


@dataclass
class ModelTape:
    records: list[bytes | None] = field(default_factory=list)
    at: int = 0
    pad: bool = False

    def read(self, size: int) -> bytes:
        record = self.records[self.at]
        assert record is not None, "the model never reads a filemark"
        assert len(record) == size, "nor a block of another length"
        self.at += 1
        return record

    def write(self, record: bytes | None) -> None:
        self.records = [*self.records[: self.at], record]
        self.at += 1


@dataclass
class CopyModel:
    """Residual source data and residual destination data, and what segments do with them.

    `held` has all that was processed; with `destination_data` put there from outside it can be
    told which segment did.
    """

    source_data: bytes = b""
    destination_data: bytes = b""
    held: bytes = b""

    def play(self, segment: tuple, *, last: bool = False) -> None:
        """One segment. Raises Inexact after whatever it still writes."""
        getattr(self, f"_segment_{segment[0]}")(*segment[1:])
        if last:
            self.source_data = self.destination_data = b""

    def _processed(self, count: int, read_one) -> bytes:
        while len(self.source_data) < count:
            self.source_data += read_one()
        taken, self.source_data = self.source_data[:count], self.source_data[count:]
        self.held += taken
        return taken

    def _write_all(self, size: int, write_one) -> None:
        while len(self.destination_data) >= size:
            write_one(self.destination_data[:size])
            self.destination_data = self.destination_data[size:]

    def _segment_00(self, disk, lba, blocks, tape, unit, cat):
        lbas = iter(range(lba, lba + 10**6))
        self.destination_data += self._processed(blocks * disk.block, lambda: disk.read(next(lbas)))
        self._write_all(unit, tape.write)
        self._rest(disk.pad, tape.pad, cat, unit, tape.write)

    def _segment_01(self, tape, unit, disk, lba, blocks, cat):
        self._fill(lambda: tape.read(unit), disk, lba, blocks)
        self._surplus(disk.pad, cat)
        lbas = iter(range(lba + blocks, 10**6))
        self._rest(tape.pad, disk.pad, cat, disk.block, lambda data: disk.write(next(lbas), data))

    def _segment_02(self, source, source_lba, blocks, disk, lba, cat, dc):
        reads = iter(range(source_lba, source_lba + 10**6))
        writes = iter(range(lba, lba + 10**6))
        if dc:
            self._fill(lambda: source.read(next(reads)), disk, lba, blocks)
            self._surplus(disk.pad, cat)
            writes = iter(range(lba + blocks, 10**6))
        else:
            self.destination_data += self._processed(
                blocks * source.block, lambda: source.read(next(reads))
            )
            self._write_all(disk.block, lambda data: disk.write(next(writes), data))
        self._rest(
            source.pad, disk.pad, cat, disk.block, lambda data: disk.write(next(writes), data)
        )

    def _fill(self, read_one, disk, lba, blocks):
        wanted = blocks * disk.block
        if len(self.destination_data) < wanted:
            missing = wanted - len(self.destination_data)
            self.destination_data += self._processed(missing, read_one)
        for number in range(blocks):
            disk.write(lba + number, self.destination_data[: disk.block])
            self.destination_data = self.destination_data[disk.block :]

    def _segment_03(self, source, source_unit, tape, unit, count, cat):
        self.destination_data += self._processed(count, lambda: source.read(source_unit))
        self._write_all(unit, tape.write)
        self._rest(source.pad, tape.pad, cat, unit, tape.write)

    def _segment_08(self, disk, at, count, tape, unit, cat):
        self.source_data += disk.content[at : at + count]
        self.destination_data += self._processed(count, None)
        self._write_all(unit, tape.write)
        self._rest(disk.pad, tape.pad, cat, unit, tape.write)

    def _segment_09(self, tape, unit, disk, at, count, cat):
        if len(self.destination_data) < count:
            missing = count - len(self.destination_data)
            self.destination_data += self._processed(missing, lambda: tape.read(unit))
        self._put(disk, at, count)
        self._surplus(disk.pad, cat)
        self._rest(tape.pad, disk.pad, cat, 1, None)

    def _segment_0a(self, source, source_at, count, disk, at, cat):
        self.source_data += source.content[source_at : source_at + count]
        self.destination_data += self._processed(count, None)
        self._put(disk, at, count)
        self._surplus(disk.pad, cat)
        self._rest(source.pad, disk.pad, cat, 1, None)

    def _put(self, disk, at, count):
        disk.content = (
            disk.content[:at] + self.destination_data[:count] + disk.content[at + count :]
        )
        self.destination_data = self.destination_data[count:]

    def _segment_16(self, source, source_lba, blocks, disk, lba):
        size = disk.block
        most = min(
            len(source.content) // size - source_lba, len(disk.content) // size - lba, blocks or 999
        )
        piece = source.content[source_lba * size : (source_lba + most) * size]
        disk.content = disk.content[: lba * size] + piece + disk.content[lba * size + len(piece) :]

    def _segment_04(self, data, tape, unit, cat):
        self.destination_data += data
        self._write_all(unit, tape.write)
        self._rest(False, tape.pad, cat, unit, tape.write)

    def _segment_06(self, tape, unit, count, cat):
        self._processed(count, lambda: tape.read(unit))
        self._rest(tape.pad, False, cat, 0, None)

    def _segment_10(self, tape, count):
        for _ in range(count):
            tape.write(None)

    def _segment_12(self, tape, block):
        tape.at = block

    def _surplus(self, destination_pad, cat):
        """Footnote a of table 116."""
        if not cat and destination_pad and self.destination_data:
            raise Inexact

    def _rest(self, source_pad, destination_pad, cat, unit, write):
        """Table 116, row by row."""
        if cat:
            return
        match source_pad, destination_pad:
            case True, True:
                self.source_data = b""
                self._pad(unit, write)
            case False, True:
                self._pad(unit, write)
            case True, False:
                self.source_data = b""
                self.destination_data = b""
            case False, False:
                if self.source_data or self.destination_data:
                    raise Inexact

    def _pad(self, unit, write):
        if self.destination_data:
            write(self.destination_data + bytes(unit - len(self.destination_data)))
            self.destination_data = b""
