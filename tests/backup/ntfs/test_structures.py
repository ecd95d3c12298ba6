"""The small structures of NTFS, against vectors made by hand and models that are slow and plain."""

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.backup.ntfs import NtfsError
from serverfree.backup.ntfs.bitmap import at_most, runs_of_ones
from serverfree.backup.ntfs.boot import Boot
from serverfree.backup.ntfs.journal import is_clean
from serverfree.backup.ntfs.lznt1 import decompress
from serverfree.backup.ntfs.runs import unpack_runs
from serverfree.backup.ntfs.security import BLOCK, descriptors, digest
from support.ntfs_memory import fix_up

# [MS-XCA] 3.3: the example of LZNT1, and what it is of.
TUNE = (
    b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D "
    b"E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0"
)
PACKED_TUNE = bytes.fromhex(
    "38b088462320002047204100 10a24701a045204400084501 507900c04520052413 8805b4024a44ef0358028c09"
    "1601484500be009e0004011890 00"
)


def test_runs_of_the_textbook() -> None:
    # Three runs: 24 clusters at 5555; 16 at 5555 - 1365; a hole of 8; 1 at the same distance + 256.
    runs = bytes.fromhex("21 18 b315 21 10 abfa 01 08 22 0100 0001 00")
    assert unpack_runs(runs) == [(5555, 24), (4190, 16), (None, 8), (4446, 1)]


def test_the_length_of_a_run_is_unsigned_and_its_distance_is_not() -> None:
    assert unpack_runs(bytes.fromhex("11 ff 7f 11 80 ff 00")) == [(127, 255), (126, 128)]


@pytest.mark.parametrize("runs", ["21 18 b3", "91 01 01", "10 00", "1f", "11 00 01 00"])
def test_runs_that_are_none(runs: str) -> None:
    with pytest.raises(NtfsError):
        unpack_runs(bytes.fromhex(runs))


def test_runs_without_an_end_mark_end_with_their_attribute() -> None:
    assert unpack_runs(bytes.fromhex("11 05 07")) == [(7, 5)]


@given(st.binary(max_size=64))
@settings(max_examples=300)
def test_random_runs_are_runs_or_the_one_error(data: bytes) -> None:
    try:
        found = unpack_runs(data)
    except NtfsError:
        return
    assert all(count > 0 for _, count in found)


def test_lznt1_of_the_specification() -> None:
    assert decompress(PACKED_TUNE, 4096) == TUNE.ljust(4096, b"\0")


def test_lznt1_chunks_that_are_not_compressed_or_missing() -> None:
    plain = random.Random(1).randbytes(4096)
    stored = (0x3FFF).to_bytes(2, "little") + plain
    data = stored + PACKED_TUNE
    assert decompress(data, 16_384) == (plain + TUNE).ljust(16_384, b"\0")


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_random_lznt1_is_data_of_the_size_or_the_one_error(data: bytes) -> None:
    head = (0xB000 | max(len(data) - 1, 0)).to_bytes(2, "little")
    with contextlib.suppress(NtfsError):
        assert len(decompress(head + data, 65_536)) == 65_536


@given(
    st.lists(st.sampled_from([b"\0", b"\xff", b"\0" * 9, b"\xff" * 9, b"\x81", b"\x5a"])),
    st.integers(0, 20),
    st.integers(1, 7),
)
def test_runs_of_ones_are_those_that_counting_finds(
    parts: list[bytes], spare: int, piece: int
) -> None:
    data = b"".join(parts)
    bits = max(8 * len(data) - spare, 0)
    expected: list[tuple[int, int]] = []
    for bit in range(bits):
        if data[bit >> 3] >> (bit & 7) & 1:
            if expected and sum(expected[-1]) == bit:
                expected[-1] = expected[-1][0], expected[-1][1] + 1
            else:
                expected.append((bit, 1))
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    assert list(runs_of_ones(pieces, bits)) == expected


def test_too_many_runs_become_fewer_and_cover_all() -> None:
    runs = [(0, 1), (2, 1), (10, 1), (12, 1), (100, 1), (200, 1)]
    assert at_most(runs, 6) == runs
    assert at_most(runs, 4) == [(0, 3), (10, 3), (100, 1), (200, 1)]
    assert at_most(runs, 1) == [(0, 201)]


def restart_page(sequence: int, in_use: int, flags: int) -> bytes:
    area = sequence.to_bytes(8, "little") + b"\1\0\0\0"
    area += in_use.to_bytes(2, "little") + flags.to_bytes(2, "little")
    head = b"RSTR" + (30).to_bytes(2, "little") + (9).to_bytes(2, "little") + bytes(16)
    page = (head + (48).to_bytes(2, "little")).ljust(48, b"\0") + area
    page = page[:30] + b"\1\0" + page[32:]
    return fix_up(page.ljust(4096, b"\0"))


@pytest.mark.parametrize(
    ("pages", "clean"),
    [
        (b"\xff" * 8192, True),
        (restart_page(1, 0, 0) + restart_page(2, 0, 0), False),
        (restart_page(1, 0, 0) + restart_page(2, 0xFFFF, 0), True),
        (restart_page(2, 0, 0) + restart_page(1, 0xFFFF, 0), False),
        (restart_page(1, 0, 2) + restart_page(2, 0, 2), True),
        (restart_page(1, 0xFFFF, 0)[:600] + bytes(7592), False),
    ],
)
def test_the_newer_restart_page_tells_whether_the_volume_was_left_in_order(
    pages: bytes, clean: bool
) -> None:
    assert is_clean(pages) is clean


def entry(identifier: int, descriptor: bytes, place: int) -> bytes:
    head = digest(descriptor).to_bytes(4, "little") + identifier.to_bytes(4, "little")
    head += place.to_bytes(8, "little") + (20 + len(descriptor)).to_bytes(4, "little")
    return (head + descriptor).ljust((20 + len(descriptor) + 15) & ~15, b"\0")


def test_the_hash_of_a_descriptor() -> None:
    # By hand: 1; 1 turned left by 3 is 8, plus 2 is 10; 10 turned is 80, plus FFFFFFFFh is 79.
    words = (1, 2, 0xFFFFFFFF)
    assert digest(b"".join(word.to_bytes(4, "little") for word in words)) == 79


def test_descriptors_of_two_blocks() -> None:
    first = entry(0x100, b"one.", 0) + entry(0x101, b"two.....", 32)
    second = entry(0x102, b"three...", 2 * BLOCK)
    stream = first.ljust(BLOCK, b"\0") * 2 + second.ljust(BLOCK, b"\0") + second
    assert descriptors([stream]) == {0x100: b"one.", 0x101: b"two.....", 0x102: b"three..."}


# Not 4 to 7: no checksum covers the number of a descriptor.
@pytest.mark.parametrize("at", [0, 9, 17, 22, 40, 60])
def test_the_mirror_has_what_the_block_has_lost(at: int) -> None:
    whole = (entry(0x100, b"one.", 0) + entry(0x101, b"two.....", 32)).ljust(BLOCK, b"\0")
    harmed = whole[:at] + b"\xee" + whole[at + 1 :]
    assert descriptors([harmed, whole]) == {0x100: b"one.", 0x101: b"two....."}


def test_clusters_of_more_than_64_kib_are_a_negative_logarithm() -> None:
    sector = bytearray(512)
    sector[3:11] = b"NTFS    "
    sector[0x0B:0x0D] = (512).to_bytes(2, "little")
    sector[0x0D] = 0xF4  # 256 - 12: 2 to the 12th sectors
    sector[0x28:0x30] = (1 << 20).to_bytes(8, "little")
    sector[0x40] = 0xF6  # -10
    sector[0x44] = 0xF4  # -12
    boot = Boot.unpack(bytes(sector))
    assert (boot.cluster_size, boot.record_size, boot.index_size) == (2 << 20, 1024, 4096)
