"""Plays the segments of a planned command on byte strings, by SPC-4 5.17.7.2 and tables 115 to 117.

It shares nothing with the planner but the segment classes, and nothing at all with the data mover.
"""

import hashlib
from dataclasses import dataclass, field

from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import (
    BlockRangeToStream,
    BlockToStream,
    DigestOfDestination,
    InlineToStream,
    Locate,
    StreamToBlock,
    StreamToBlockRange,
    StreamToDigest,
    StreamToDiscard,
    WriteFilemarks,
)


class InexactSegment(AssertionError):
    """COPY ABORTED 26/0A."""


@dataclass
class PlanModel:
    """A disk and a tape, whose blocks all have one length; None among them is a filemark."""

    disk: bytearray
    block: int
    tape: list[bytes | None] = field(default_factory=list)
    at: int = 0
    held: list[bytes] = field(default_factory=list)
    tape_reads: int = 0

    def run(self, copy: CopyList) -> None:
        """Play one command to its end; residual data dies with it."""
        pads = {cscd.device_type: cscd.parameters.pad for cscd in copy.cscds}
        disk_pad, tape_pad = pads.get(0, False), pads[1]
        source, destination, since = b"", b"", b""
        self.held = []

        def settle(unit, cat, source_pad, destination_pad, surplus_is_error=False):
            """Tables 116 and 117."""
            nonlocal source, destination
            if cat or not (source or destination):
                return
            if surplus_is_error and destination and destination_pad:
                raise InexactSegment("surplus destination data")
            if not source_pad and not destination_pad:
                raise InexactSegment(f"{len(source)} and {len(destination)} bytes left over")
            if source_pad:
                source = b""
            if destination_pad and destination:
                self.write(destination.ljust(unit, b"\0"))
            destination = b""

        def write_whole(unit):
            nonlocal destination
            while len(destination) >= unit:
                self.write(destination[:unit])
                destination = destination[unit:]

        def take(count, unit):
            nonlocal source
            while len(source) < count:
                source += self.read(unit)
            taken, source = source[:count], source[count:]
            return taken

        for each in copy.segments:
            match each:
                case BlockToStream() | BlockRangeToStream():
                    start = each.lba * self.block
                    if isinstance(each, BlockToStream):
                        assert 0 < each.number_of_blocks <= 0xFFFF
                        size = each.number_of_blocks * self.block
                    else:
                        assert 0 <= each.byte_offset < self.block
                        start, size = start + each.byte_offset, each.number_of_bytes
                    assert start + size <= len(self.disk)
                    source += self.disk[start : start + size]
                    moved, source = source[:size], source[size:]
                    destination, since = destination + moved, since + moved
                    write_whole(each.stream_transfer_length)
                    settle(each.stream_transfer_length, each.cat, disk_pad, tape_pad)
                case InlineToStream():
                    assert each.inline_offset % 4 == 0
                    end = each.inline_offset + each.number_of_bytes
                    assert end <= len(copy.inline)
                    moved = bytes(copy.inline[each.inline_offset : end])
                    destination, since = destination + moved, since + moved
                    write_whole(each.stream_transfer_length)
                    settle(each.stream_transfer_length, each.cat, False, tape_pad)
                case DigestOfDestination():
                    self.held.append(hashlib.sha256(since).digest())
                    since = b""
                case WriteFilemarks():
                    assert not destination, "what waits would land behind the filemark, or die"
                    for _ in range(each.filemark_count):
                        self.write(None)
                case Locate():
                    self.at = each.logical_object_identifier
                case StreamToDigest() | StreamToDiscard():
                    taken = take(each.number_of_bytes, each.stream_transfer_length)
                    if isinstance(each, StreamToDigest):
                        self.held.append(hashlib.sha256(taken).digest())
                    settle(0, each.cat, tape_pad, False)
                case StreamToBlock() | StreamToBlockRange():
                    start = each.lba * self.block
                    if isinstance(each, StreamToBlock):
                        assert 0 < each.number_of_blocks <= 0xFFFF
                        size = each.number_of_blocks * self.block
                    else:
                        assert 0 <= each.byte_offset < self.block
                        start, size = start + each.byte_offset, each.number_of_bytes
                    assert start + size <= len(self.disk)
                    destination += take(size - len(destination), each.stream_transfer_length)
                    self.disk[start : start + size] = destination[:size]
                    destination = destination[size:]
                    settle(0, each.cat, tape_pad, disk_pad, surplus_is_error=True)
                case _:
                    raise AssertionError(f"not a segment of a plan: {each}")

    def write(self, record: bytes | None) -> None:
        del self.tape[self.at :]
        self.tape.append(record)
        self.at += 1

    def read(self, unit: int) -> bytes:
        record = self.tape[self.at]
        assert record is not None, "a filemark where data was to be"
        assert len(record) == unit, "a block of another length"
        self.at += 1
        self.tape_reads += 1
        return record
