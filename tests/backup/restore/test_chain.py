"""A chain of images, held against a disk that they are written to one after the other."""

from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.backup.archive.member import Data
from serverfree.backup.pieces import ToDisk
from serverfree.backup.restore.chain import gaps, newest
from serverfree.backup.restore.ranges import Ranges

SIZE = 60


@st.composite
def images(draw):
    """Some images of a disk: extents that do not overlap within one, each with its offset."""
    found, offset = [], 0
    for _ in range(draw(st.integers(1, 4))):
        places = sorted(draw(st.sets(st.integers(0, SIZE), max_size=8)))
        image = []
        for start, end in zip(places[::2], places[1::2], strict=False):
            image.append(Data(start, end - start, offset))
            offset += end - start + draw(st.integers(0, 2))
        found.append(image)
    return found


@settings(max_examples=200, deadline=None)
@given(images())
def test_each_place_is_written_once_with_what_came_last(chain):
    disk: list[int | None] = [None] * SIZE
    for image in chain:
        for data in image:
            for n in range(data.length):
                disk[data.start + n] = data.archive_offset + n
    found: list[int | None] = [None] * SIZE
    pieces = newest(chain)
    for piece in pieces:
        for n in range(piece.length):
            assert found[piece.offset + n] is None
            found[piece.offset + n] = piece.archive_offset + n
    assert found == disk
    assert pieces == sorted(pieces, key=lambda piece: piece.offset)
    free = {n for at, length in gaps(pieces, SIZE) for n in range(at, at + length)}
    assert free == {n for n in range(SIZE) if disk[n] is None}


def test_changes_lie_over_the_image_that_they_change():
    base, change = [Data(0, 100, 1000)], [Data(40, 10, 5000)]
    assert newest([base, change]) == [
        ToDisk(1000, 40, 0),
        ToDisk(5000, 10, 40),
        ToDisk(1050, 50, 50),
    ]


def test_ranges_tell_what_they_meet_and_what_they_cover():
    ranges = Ranges([(20, 10), (0, 10), (10, 5)])
    assert ranges.all == [(0, 15), (20, 10)]
    assert ranges.covers(0, 15)
    assert not ranges.covers(10, 10)
    assert ranges.meets(14, 1)
    assert not ranges.meets(15, 5)
    assert ranges.meets(15, 6)
    assert not ranges.meets(30, 100)
