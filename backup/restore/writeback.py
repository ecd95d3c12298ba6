"""From the shadow to the volume: what has changed of its metadata, in an order that forgives.

A crash at any point leaves the volume as it was, or marked to be checked: what nothing leads to
goes first, then the mark, then what leads there, and the mark is taken back last.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from serverfree.backup.ntfs.boot import Boot
from serverfree.backup.restore.ranges import Range, Ranges
from serverfree.backup.restore.records import marked_dirty
from serverfree.backup.restore.shadow import Shadow
from serverfree.backup.restore.target import Target

VOLUME_RECORD = 3


class Phase(IntEnum):
    """When a block is written."""

    UNREACHED = 0
    LOG = 1
    BITMAPS = 2
    RECORDS = 3
    REST = 4


@dataclass(slots=True)
class Layout:
    """What lies where on the volume, as the shadow has it; `used` is as the volume was.

    `written` is all that may have to be written: metadata, and content that is in the shadow.
    """

    boot: Boot
    used: Ranges
    written: Ranges
    log: Ranges
    bitmaps: Ranges
    records: Ranges
    first_records: Sequence[int]
    """Where the $MFT begins, and its mirror."""

    def phase(self, place: int, length: int) -> Phase:
        """Say when a block is to be written."""
        if not self.used.meets(place, length):
            return Phase.UNREACHED
        for ranges, phase in (
            (self.log, Phase.LOG), (self.bitmaps, Phase.BITMAPS), (self.records, Phase.RECORDS),
        ):  # fmt: skip
            if ranges.meets(place, length):
                return phase
        return Phase.REST


def write_back(
    shadow: Shadow,
    target: Target,
    layout: Layout,
    before: Callable[[Phase], None] = lambda phase: None,
) -> int:
    """Write what has changed of the shadow to the volume; return how many bytes.

    `before` is told of each phase.
    """
    phases: dict[Phase, list[Range]] = {phase: [] for phase in Phase}
    for place, total in shadow.differences(layout.written.all):
        for at in range(place, place + total, shadow.step):
            length = min(shadow.step, place + total - at)
            runs = phases[layout.phase(at, length)]
            if runs and sum(runs[-1]) == at:
                runs[-1] = runs[-1][0], runs[-1][1] + length
            else:
                runs.append((at, length))
    if not any(phases.values()):
        return 0
    marks = _Marks(shadow, target, layout)
    written = 0
    # 1. What nothing on the volume leads to yet: a crash here changes nothing that counts.
    before(Phase.UNREACHED)
    written += _write(shadow, target, phases[Phase.UNREACHED])
    target.flush()
    # 2. The mark: from here to the last step a crash asks for a check of the volume.
    written += marks.set()
    target.flush()
    # 3. The log, whose old entries must not be played back over what follows.
    # 4. What is in use; 5. the files; 6. the names that lead to them, and the rest.
    for phase in (Phase.LOG, Phase.BITMAPS, Phase.RECORDS, Phase.REST):
        before(phase)
        written += _write(shadow, target, phases[phase], marks)
        target.flush()
    # 7. The mark goes, unless the volume had it.
    written += marks.restore()
    target.flush()
    return written


def _write(
    shadow: Shadow, target: Target, runs: Iterable[Range], marks: "_Marks | None" = None
) -> int:
    written = 0
    for place, length in runs:
        for at, size in _pieces(place, length):
            data = shadow.read_at(at, size)
            target.write_at(at, data if marks is None else marks.over(at, data))
            written += size
    return written


def _pieces(place: int, length: int, piece: int = 1 << 20) -> Iterator[Range]:
    for at in range(place, place + length, piece):
        yield at, min(piece, place + length - at)


class _Marks:
    """The record of $Volume, in the $MFT and its mirror, with the dirty mark."""

    def __init__(self, shadow: Shadow, target: Target, layout: Layout) -> None:
        self._shadow, self._target = shadow, target
        size = layout.boot.record_size
        places = [first + VOLUME_RECORD * size for first in layout.first_records]
        self._records = {place: marked_dirty(shadow.read_at(place, size)) for place in places}

    def over(self, place: int, data: bytes) -> bytes:
        """Return data for a place with the marked records in it, where they lie there."""
        for at, record in self._records.items():
            if place < at + len(record) and at < place + len(data):
                changed = bytearray(data)
                first, last = max(at, place), min(at + len(record), place + len(data))
                changed[first - place : last - place] = record[first - at : last - at]
                data = bytes(changed)
        return data

    def set(self) -> int:
        """Write the marked records: the blocks as the volume has them but for those."""
        return sum(
            self._put(at, length, self.over(at, self._shadow.pristine(at, length)))
            for at, length in self._blocks()
        )

    def restore(self) -> int:
        """Write the records as the shadow has them."""
        return sum(
            self._put(at, length, self._shadow.read_at(at, length)) for at, length in self._blocks()
        )

    def _put(self, place: int, length: int, data: bytes) -> int:
        self._target.write_at(place, data)
        return length

    def _blocks(self) -> Iterator[Range]:
        block = self._target.block_length
        for at, record in self._records.items():
            start = at // block * block
            yield start, -(-(at + len(record)) // block) * block - start
