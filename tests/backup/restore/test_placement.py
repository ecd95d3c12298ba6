"""What lies on the tape laid over the clusters of the target, held against bytes moved singly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.backup.files import Extent
from serverfree.backup.restore.placement import Move, Placement, place_stream
from serverfree.backup.restore.wanted import Piece, RestoreError, WantedStream


def placed(pieces, extents, valid, block):
    into = Placement()
    place_stream(pieces, extents, valid, block, into)
    return into


def test_a_piece_is_cut_where_the_target_goes_on_elsewhere():
    pieces = [Piece(0, 3000, 700)]
    extents = [Extent(0, 1024, 8192), Extent(1024, 2048, 4096)]
    assert placed(pieces, extents, 3000, 512).moves == [
        Move(700, 1024, 8192),
        Move(1724, 1976, 4096),
    ]


def test_a_hole_inside_a_larger_cluster_becomes_zeros():
    pieces = [Piece(4096, 4096, 0)]
    result = placed(pieces, [Extent(0, 8192, 65536)], 8192, 512)
    assert result.zeros == [(65536, 4096)]
    assert result.moves == [Move(0, 4096, 69632)]


def test_nothing_lies_behind_the_valid_length():
    assert placed([], [Extent(0, 8192, 0)], 0, 512) == Placement()


def test_a_piece_without_a_cluster_is_refused():
    with pytest.raises(RestoreError, match="100 bytes of 612 have no clusters"):
        placed([Piece(0, 612, 0)], [Extent(0, 512, 512)], 612, 512)


def test_pieces_side_by_side_on_the_tape_are_one():
    stream = WantedStream(
        "", 300, 250, pieces=(Piece(0, 100, 7), Piece(100, 100, 107), Piece(200, 100, 900))
    )
    assert stream.data() == (Piece(0, 200, 7), Piece(200, 50, 900))


@st.composite
def streams(draw):
    block = draw(st.sampled_from((8, 16)))
    cluster = block * draw(st.integers(1, 3))
    clusters = draw(st.integers(1, 8))
    valid = draw(st.integers(0, clusters * cluster))
    order = draw(st.permutations(range(20)))
    extents = [Extent(n * cluster, cluster, order[n] * cluster) for n in range(clusters)]
    pieces, at, offset = [], 0, 0
    while at < valid:
        at += draw(st.integers(0, 2)) * draw(st.integers(0, 20))
        length = min(draw(st.integers(1, 40)), valid - at)
        if length <= 0:
            break
        pieces.append(Piece(at, length, offset))
        at, offset = at + length, offset + length + draw(st.integers(0, 5))
    return block, extents, tuple(pieces), valid


@settings(max_examples=150, deadline=None)
@given(streams())
def test_every_valid_byte_gets_what_it_is(case):
    block, extents, pieces, valid = case
    archive = bytes(n % 251 + 1 for n in range(2000))
    disk = bytearray(b"\xee" * 20 * 48)
    before = bytes(disk)
    result = placed(pieces, extents, valid, block)
    for place, length in result.zeros:
        assert place % block == 0 == length % block
        disk[place : place + length] = bytes(length)
    for move in result.moves:
        disk[move.place : move.place + move.length] = archive[move.archive_offset :][: move.length]
    wanted = bytearray(valid)
    for piece in pieces:
        wanted[piece.start : piece.start + piece.length] = archive[piece.archive_offset :][
            : piece.length
        ]
    found = b"".join(disk[each.place : each.place + each.length] for each in extents)
    assert found[:valid] == wanted
    mine = {n for each in extents for n in range(each.place, each.place + each.length)}
    assert all(disk[n] == before[n] for n in range(len(disk)) if n not in mine)
