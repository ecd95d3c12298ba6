"""Bits that a disk got wrong: a block reads right or not at all, the others keep their place."""

import re
import shutil
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_check import check_cartridge
from serverfree.target.backstore.cartridge_coding import compressed
from serverfree.target.backstore.cartridge_errors import CartridgeError, DamagedRecord
from serverfree.target.backstore.cartridge_log import RecordType
from support.tape import MEMORY

DAMAGED = "damaged"
LOG, INDEX = "part0.log", "part0.idx"
STATES = ("state.A", "state.B")


def contents(directory):
    """All objects: payloads, None for filemarks, DAMAGED for what cannot be read."""
    cartridge = open_cartridge(directory)
    (partition,) = cartridge.partitions
    found = []
    for block in range(partition.eod):
        entry = partition.entry(block)
        try:
            found.append(
                None if entry.type == RecordType.FILEMARK else bytes(partition.read(block))
            )
        except DamagedRecord:
            found.append(DAMAGED)
    files = [partition.start_of_file(file) for file in range(6)]
    cartridge.close()
    return found, files


@pytest.fixture(scope="module")
def original():
    """A closed cartridge with a past, what is on it, and the files that its filemarks make."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        directory = Path(temporary) / "cartridge"
        cartridge = open_cartridge(directory, 1 << 20)
        (partition,) = cartridge.partitions
        partition.append([b"old" * 30, b"older", b"oldest" * 9])
        partition.mark(2)
        cartridge.sync()
        partition.cut(1)
        partition.append([b"new" * 11, b"", b"x"])
        partition.mark(1)
        partition.append([compressed(b"newer" * 40)])
        cartridge.sync()
        partition.append([b"newest" * 7])
        partition.mark(2)
        partition.append([b"last"])
        cartridge.close()
        yield directory, *contents(directory)


def harmed(original, *flips, lose_index=False):
    """What is found on a copy in which bits are flipped: (file, byte, bit)."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        copy = Path(temporary) / "cartridge"
        shutil.copytree(original, copy)
        for name, byte, bit in flips:
            raw = bytearray((copy / name).read_bytes())
            raw[byte % len(raw)] ^= 1 << bit
            (copy / name).write_bytes(raw)
        if lose_index:
            (copy / INDEX).unlink()
        return contents(copy)


def places(directory, name):
    """Every byte of a file; of a superblock, which is mostly padding, the ones with a meaning."""
    size = (directory / name).stat().st_size
    return range(size) if size < 4096 else [*range(120), 2000, *range(size - 4, size)]


def test_any_byte_of_the_index(original):
    directory, right, files = original
    for byte in places(directory, INDEX):
        assert harmed(directory, (INDEX, byte, byte % 8)) == (right, files)


@pytest.mark.parametrize("name", STATES)
def test_any_byte_of_one_superblock(original, name):
    directory, right, files = original
    for byte in places(directory, name):
        assert harmed(directory, (name, byte, byte % 8)) == (right, files)


def test_any_byte_of_the_log_costs_one_block_at_most(original):
    directory, right, files = original
    for byte in places(directory, LOG):
        found, found_files = harmed(directory, (LOG, byte, byte % 8))
        assert found_files == files, "marks are found through the index"
        assert sum(x != y for x, y in zip(found, right, strict=True)) <= 1
        assert all(x in (y, DAMAGED) for x, y in zip(found, right, strict=True))


def test_any_byte_of_the_log_while_the_index_is_lost_too(original):
    directory, right, _ = original
    for byte in places(directory, LOG):
        found, _ = harmed(directory, (LOG, byte, byte % 8), lose_index=True)
        assert sum(x != y for x, y in zip(found, right, strict=True)) <= 1
        assert all(x in (y, DAMAGED) for x, y in zip(found, right, strict=True))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([LOG, LOG, INDEX, *STATES]), st.integers(0, 8191), st.integers(0, 7)
        ),
        min_size=2,
        max_size=6,
    ),
    st.booleans(),
)
def test_any_damage_anywhere_never_gives_wrong_data(original, flips, lose_index):
    directory, right, _ = original
    try:
        found, _ = harmed(directory, *flips, lose_index=lose_index)
    except CartridgeError as error:
        if "both superblocks are damaged" not in str(error):
            raise
        return
    # An old superblock and a damaged block behind its end of data: the tape ends there.
    assert len(found) <= len(right)
    assert all(x in (y, DAMAGED) for x, y in zip(found, right, strict=False))


def test_log_of_which_the_end_is_gone(original):
    directory, right, _ = original
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        for length in range(64, (directory / LOG).stat().st_size, 50):
            copy = Path(temporary) / str(length)
            shutil.copytree(directory, copy)
            (copy / LOG).write_bytes((directory / LOG).read_bytes()[:length])
            for _ in range(2):
                found, _ = contents(copy)
                assert len(found) == len(right), "what was promised is missed, not forgotten"
                assert all(x in (y, DAMAGED) for x, y in zip(found, right, strict=True))
                (copy / INDEX).unlink()


def test_lost_superblock_of_an_overwrite_with_other_filemarks(tmp_path):
    """The older superblock ends the data elsewhere; file numbers must still fit together."""
    directory = tmp_path / "cartridge"
    cartridge = open_cartridge(directory, 1 << 20)
    (partition,) = cartridge.partitions
    right = [b"%d" % number * 5 for number in range(5)]
    partition.append(right)
    cartridge.sync()
    before = [(directory / name).read_bytes() for name in STATES]
    partition.cut(2)
    partition.mark(3)
    cartridge.abandon()
    for name, old in zip(STATES, before, strict=True):
        if (directory / name).read_bytes() != old:
            (directory / name).write_bytes(bytes(4096))
    found, _ = contents(directory)
    assert found == [*right[:2], DAMAGED, DAMAGED, DAMAGED]
    cartridge = open_cartridge(directory)
    (partition,) = cartridge.partitions
    assert [partition.file_at(block) for block in range(6)] == [0] * 6
    assert partition.start_of_file(1) is None
    cartridge.close()


def spoil(chance, folder):
    """Do to a file of a cartridge what bad media and bad software do; return what was done."""
    path = folder / chance.choice([LOG, LOG, LOG, INDEX, *STATES])
    raw = bytearray(path.read_bytes())
    start, length = chance.randrange(len(raw)), chance.choice([1, 8, 40, 200])
    stop = min(start + length, len(raw))
    what = chance.choice(["flip", "zero", "truncate", "duplicate", "insert", "cut out"])
    match what:
        case "flip":
            raw[start] ^= 1 << chance.randrange(8)
        case "zero":
            raw[start:stop] = bytes(stop - start)
        case "truncate":
            del raw[start:]
        case "duplicate":  # over what is elsewhere
            to = chance.randrange(len(raw))
            piece = raw[start:stop][: len(raw) - to]
            raw[to : to + len(piece)] = piece
        case "insert":  # all behind it is elsewhere
            raw[start:start] = raw[start:stop]
        case _:
            del raw[start:stop]
    path.write_bytes(raw)
    return f"{what} {path.name} from {start} to {stop}"


def named(findings):
    """The blocks that the findings call damaged or lost."""
    blocks = set()
    for each in findings:
        if numbers := re.search(r"blocks? (\d+)(?: to (\d+))? (?:is damaged|lost)", each.what):
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            blocks |= set(range(first, last + 1))
    return blocks


@pytest.mark.parametrize("seed", range(6))
def test_check_names_all_damage(original, seed):
    """Whatever happens to a file: no wrong data, and the blocks that cannot be read are named."""
    directory, right, _ = original
    chance = Random(seed)
    for _ in range(60):
        with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
            copy = Path(temporary) / "cartridge"
            shutil.copytree(directory, copy)
            before = {path.name: path.read_bytes() for path in copy.iterdir()}
            done = [spoil(chance, copy) for _ in range(chance.choice([1, 1, 2]))]
            changed = {
                path.name for path in copy.iterdir() if path.read_bytes() != before[path.name]
            }
            try:
                findings = check_cartridge(copy)
                found, _ = contents(copy)
            except CartridgeError as error:
                if "both superblocks are damaged" not in str(error):
                    raise
                continue
            assert bool(findings) == bool(changed), (done, findings)
            assert len(found) <= len(right)
            assert all(x in (y, DAMAGED) for x, y in zip(found, right, strict=False)), done
            unreadable = {block for block, each in enumerate(found) if each == DAMAGED}
            # A mark whose record is gone is still found through the index.
            marks = {block for block, each in enumerate(found) if each is None}
            assert named(findings) - marks == unreadable, (done, [str(each) for each in findings])
