"""Residual data: tables 116 and 117 of SPC-4 row by row, then against the model."""

from hypothesis import given
from hypothesis import strategies as st

from serverfree.datamover.residue import Move, Residue, Side
from support.copy_model import CopyModel, Inexact, ModelDisk, ModelTape


def test_whole_blocks_leave_nothing() -> None:
    residue = Residue()
    move = residue.process(4096, Side(512), Side(1024), cat=False)
    assert move == Move(reads=8, processed=4096, writes=4)
    assert residue == Residue()


def test_cat_keeps_what_does_not_fill_a_block() -> None:
    residue = Residue()
    assert residue.process(1536, Side(512), Side(1024), cat=True).writes == 1
    assert residue == Residue(destination=512)
    move = residue.process(512, Side(512), Side(1024), cat=False)
    assert (move.reads, move.writes, move.inexact) == (1, 1, False)


def test_residue_of_source_is_processed_before_anything_is_read() -> None:
    residue = Residue(source=700)
    move = residue.process(1024, Side(512), Side(512), cat=True)
    assert (move.reads, residue.source) == (1, 700 + 512 - 1024)
    assert residue.process(100, Side(512), Side(512), cat=True).reads == 0


# Table 116 with a remainder of 100 bytes on the source side and 412 on the other.
def ragged(source_pad: bool, destination_pad: bool, cat: bool) -> tuple[Move, Residue]:
    residue = Residue(source=100, destination=400)
    side = Side(512, source_pad), Side(1024, destination_pad)
    move = residue.process(12, *side, cat)
    return move, residue


def test_cat_one_keeps_both_whatever_the_pads() -> None:
    for source_pad in (False, True):
        for destination_pad in (False, True):
            move, residue = ragged(source_pad, destination_pad, cat=True)
            assert move == Move(processed=12)
            assert residue == Residue(source=88, destination=412)


def test_pad_in_both_drops_the_source_and_pads_the_destination() -> None:
    move, residue = ragged(True, True, cat=False)
    assert move == Move(processed=12, writes=1, pad=612, drop_source=True)
    assert residue == Residue()


def test_pad_in_the_destination_only_keeps_the_source() -> None:
    move, residue = ragged(False, True, cat=False)
    assert move == Move(processed=12, writes=1, pad=612)
    assert residue == Residue(source=88)


def test_pad_in_the_source_only_drops_both() -> None:
    move, residue = ragged(True, False, cat=False)
    assert move == Move(processed=12, drop_source=True, drop_destination=True)
    assert residue == Residue()


def test_no_pad_at_all_is_inexact() -> None:
    move, _ = ragged(False, False, cat=False)
    assert move.inexact
    assert (move.writes, move.pad) == (0, 0)


def test_source_residue_alone_is_inexact_too() -> None:
    residue = Residue()
    move = residue.fill(512, Side(1024), Side(512), cat=False)
    assert (move.writes, move.inexact) == (1, True)


def test_pad_with_nothing_left_writes_nothing_more() -> None:
    residue = Residue()
    move = residue.process(1024, Side(512, True), Side(1024, True), cat=False)
    assert (move.writes, move.pad, move.inexact) == (1, 0, False)


def test_surplus_destination_data_after_a_fill_is_inexact_despite_its_pad() -> None:
    residue = Residue(destination=700)
    move = residue.fill(512, Side(1024, True), Side(512, True), cat=False)
    assert (move.processed, move.writes, move.inexact) == (0, 1, True)


def test_surplus_destination_data_is_dropped_where_only_the_source_has_pad() -> None:
    residue = Residue(destination=700)
    move = residue.fill(512, Side(1024, True), Side(512, False), cat=False)
    assert (move.inexact, move.drop_destination, residue) == (False, True, Residue())


def test_inline_data_counts_as_a_source_without_pad() -> None:
    residue = Residue(source=5, destination=10)
    assert residue.append(3, Side(512, True), cat=False).pad == 512 - 13
    assert residue == Residue(source=5)
    assert residue.append(3, Side(512, False), cat=False).inexact


def test_no_inline_data_with_pad_flushes_what_is_left() -> None:
    residue = Residue(destination=10)
    assert residue.append(0, Side(512, True), cat=False) == Move(writes=1, pad=502)


def test_discard_counts_as_a_destination_without_pad() -> None:
    residue = Residue(source=5, destination=10)
    move = residue.discard(600, Side(512, True), cat=False)
    assert move == Move(reads=2, discarded=600, drop_source=True, drop_destination=True)
    assert residue == Residue()
    assert Residue(source=5).discard(4, Side(512, False), cat=False).inexact


def test_tape_functions_keep_everything() -> None:
    residue = Residue(source=5, destination=10)
    assert residue.keep() == Move()
    assert residue == Residue(source=5, destination=10)


def test_zero_blocks_still_write_what_fills_a_smaller_block() -> None:
    residue = Residue(destination=1000)
    move = residue.process(0, Side(512), Side(256), cat=True)
    assert (move.reads, move.writes, residue.destination) == (0, 3, 1000 - 768)


def test_locate_leaves_the_rest_of_a_tape_block_to_the_next_extent() -> None:
    """The trap of a careless restore: stale bytes of the old tape block land in the next extent.

    CAT=0 with PAD=1 in the segment before LOCATE is what drops them.
    """
    tape, disk = Side(1024, True), Side(512, True)
    careless = Residue()
    careless.fill(512, tape, disk, cat=True)
    careless.keep()
    assert careless.fill(512, tape, disk, cat=True).reads == 0

    careful = Residue()
    assert careful.fill(512, tape, disk, cat=False).drop_source
    careful.keep()
    assert careful.fill(512, tape, disk, cat=False).reads == 1


UNITS = st.sampled_from([1, 2, 3, 5, 8])
FUNCTIONS = st.tuples(
    st.sampled_from(["process", "fill", "append", "discard", "keep"]),
    st.integers(0, 20),
    UNITS,
    UNITS,
    st.booleans(),
    st.booleans(),
    st.sampled_from([True, True, False]),
)


@given(st.lists(FUNCTIONS, max_size=12))
def test_moves_agree_with_byte_strings(functions: list[tuple]) -> None:
    """Every count of a move, against a model that has only bytes."""
    residue, model = Residue(), CopyModel()
    for name, count, source_unit, unit, source_pad, pad, cat in functions:
        source = ModelDisk(bytes(4096), source_unit, source_pad)
        reader = ModelTape([bytes(source_unit)] * 512, 0, source_pad)
        writer = ModelTape([], 0, pad)
        target = ModelDisk(bytes(4096), unit, pad)
        sides = Side(source_unit, source_pad), Side(unit, pad)
        before = len(model.source_data), len(model.destination_data)
        if name == "process":
            segment = ("00", source, 0, count, writer, unit, cat)
            move = residue.process(count * source_unit, *sides, cat)
        elif name == "fill":
            segment = ("01", reader, source_unit, target, 0, count, cat)
            move = residue.fill(count * unit, *sides, cat)
        elif name == "append":
            segment = ("04", bytes(count), writer, unit, cat)
            move = residue.append(count, sides[1], cat)
        elif name == "discard":
            segment = ("06", reader, source_unit, count, cat)
            move = residue.discard(count, sides[0], cat)
        else:
            segment = ("12", writer, 0)
            move = residue.keep()
        try:
            model.play(segment)
        except Inexact:
            assert move.inexact
            return
        assert not move.inexact
        assert (residue.source, residue.destination) == (
            len(model.source_data),
            len(model.destination_data),
        )
        if name in ("fill", "discard"):
            assert move.reads == reader.at
        if name in ("process", "append"):
            assert move.writes == len(writer.records)
        # Bytes are neither made nor lost.
        dropped_source = before[0] + move.reads * source_unit - move.processed - move.discarded
        assert residue.source == (0 if move.drop_source else dropped_source)
        carried = before[1] + move.processed + move.appended + move.pad - move.writes * unit
        assert residue.destination == (0 if move.drop_destination else carried)
