"""Residual data between segments: how much is read, processed and written (SPC-4 5.17.7.2).

A pure state machine over byte counts. Data comes from a copy source in whole blocks, is processed
(moved from source data to destination data) to the byte, and leaves for a copy destination in
whole blocks; what is left over on either side at the end of a segment is kept, dropped, padded or
an error, by tables 116 and 117.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a segment: bytes in a whole-block transfer, and the PAD bit of its CSCD."""

    unit: int
    pad: bool = False


@dataclass(slots=True)
class Move:
    """What a segment does with data, in the order of the fields.

    `reads` whole blocks are appended to source data; `processed` bytes go from its front to the
    end of destination data, `discarded` ones go nowhere; `appended` bytes of inline data join
    destination data; `writes` whole blocks leave its front, the last completed by `pad` zeros.
    Then source and destination data are dropped where it says so; or, where `inexact`, the copy
    ends with UNEXPECTED INEXACT SEGMENT.
    """

    reads: int = 0
    processed: int = 0
    discarded: int = 0
    appended: int = 0
    writes: int = 0
    pad: int = 0
    drop_source: bool = False
    drop_destination: bool = False
    inexact: bool = False


@dataclass(slots=True)
class Residue:
    """Bytes left over by the segments so far.

    Each method takes one segment's parameters, returns its move and carries the rest on. Which
    CSCD a residue came from does not matter to the next segment (table 116, CAT=1).
    """

    source: int = 0
    destination: int = 0

    def process(self, count: int, source: Side, destination: Side, cat: bool) -> Move:
        """Process `count` bytes, then write what fills whole blocks: 00h, 02h with DC=0, 03h.

        0Bh, 0Dh with DC=0 and 0Eh do the same and hold what they process.
        """
        move = Move(reads=self._reads(count, source.unit), processed=count)
        self.source += move.reads * source.unit - count
        self.destination += count
        self._write_whole(move, destination.unit)
        self._settle(move, cat, source.pad, destination)
        return move

    def fill(self, count: int, source: Side, destination: Side, cat: bool) -> Move:
        """Write `count` bytes, a multiple of the block, processing no more than that takes.

        01h, 09h (whose unit is a byte), and 02h with DC=1. Destination data beyond them is an
        error rather than padded (footnote a of table 116).
        """
        move = Move(processed=max(0, count - self.destination), writes=count // destination.unit)
        move.reads = self._reads(move.processed, source.unit)
        self.source += move.reads * source.unit - move.processed
        self.destination += move.processed - count
        self._settle_range(move, cat, source.pad, destination)
        return move

    def extract(self, count: int, source_pad: bool, destination: Side, cat: bool) -> Move:
        """Take a range of `count` bytes from a disk and process as many: 08h.

        The range becomes source data whole, behind what is left over there; the oldest bytes are
        processed first (table 115).
        """
        move = Move(reads=count, processed=count)
        self.destination += count
        self._write_whole(move, destination.unit)
        self._settle(move, cat, source_pad, destination)
        return move

    def exchange(self, count: int, source_pad: bool, destination_pad: bool, cat: bool) -> Move:
        """Take a range of `count` bytes from a disk, process and write as many: 0Ah.

        Ranges have no blocks to fill: what was left over before is left over after, on both
        sides (table 115), and on the destination's an error rather than padded.
        """
        move = Move(reads=count, processed=count, writes=count)
        self._settle_range(move, cat, source_pad, Side(1, destination_pad))
        return move

    def append(self, count: int, destination: Side, cat: bool) -> Move:
        """Take `count` bytes from the parameter list: 04h, 05h. Source data is not touched.

        Without a copy source its PAD counts as 0 (table 117).
        """
        move = Move(appended=count)
        self.destination += count
        self._write_whole(move, destination.unit)
        self._settle(move, cat, False, destination)
        return move

    def discard(self, count: int, source: Side, cat: bool) -> Move:
        """Let go of `count` bytes of source data: 06h, 0Fh.

        Without a copy destination its PAD counts as 0 (table 117).
        """
        move = Move(reads=self._reads(count, source.unit), discarded=count)
        self.source += move.reads * source.unit - count
        self._settle(move, cat, source.pad, None)
        return move

    def keep(self) -> Move:
        """What moves no residue, 07h and 10h to 16h: all stays, as if CAT were one (table 115)."""
        return Move()

    def _reads(self, count: int, unit: int) -> int:
        # "just enough whole-block reads ... together with residual source data"
        missing = count - self.source
        return -(-missing // unit) if missing > 0 else 0

    def _write_whole(self, move: Move, unit: int) -> None:
        move.writes, self.destination = divmod(self.destination, unit)

    def _settle_range(self, move: Move, cat: bool, source_pad: bool, destination: Side) -> None:
        """Table 116 where the destination has had exactly what it was to have: footnote a."""
        if destination.pad and not cat and self.destination:
            move.inexact = True
        else:
            self._settle(move, cat, source_pad, destination)

    def _settle(self, move: Move, cat: bool, source_pad: bool, destination: Side | None) -> None:
        """Table 116 at the end of a segment."""
        if cat or not (self.source or self.destination):
            return
        destination_pad = destination is not None and destination.pad
        if not source_pad and not destination_pad:
            move.inexact = True
            return
        if source_pad:
            move.drop_source = True
            self.source = 0
        if not destination_pad:
            move.drop_destination = True
        elif destination is not None and self.destination:
            move.pad = destination.unit - self.destination
            move.writes += 1
        self.destination = 0
