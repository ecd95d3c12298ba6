"""Hostile volumes: whatever a file record says, the reader ends soon, with an NtfsError or none."""

import contextlib
import itertools
import random
import resource
import time

import pytest

from serverfree.backup.ntfs import NtfsError, Volume
from support.ntfs_memory import MemoryDevice, demo_volume, fix_up, undo_fix_up

RECORD = 1024
BOUND = 10.0  # seconds that no volume of 169 records may take, on the slowest of machines
MEMORY = 512 << 20  # bytes that the process may grow by, streams of any size read from it
SPECIAL = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF)
WIDE = (0, 1, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 60, (1 << 63) - 1, (1 << 64) - 1)


def table_of(device: MemoryDevice) -> tuple[int, int]:
    """Return where the $MFT lies and how many records it has: the demo's is in one run."""
    table = Volume.open(device).table
    (extent,) = table.extents
    return extent.place, table.count


def exercise(device: MemoryDevice) -> int:
    """Do all that a backup does. Return how many files there are."""
    try:
        volume = Volume.open(device)
    except NtfsError:
        return 0
    count = 0
    for file in volume.files():
        count += 1
        assert file.paths
        assert all(path and not path.startswith("/") for path in file.paths)
        for stream in file.streams:
            assert 0 <= stream.valid <= stream.size
            for extent in stream.extents:
                assert 0 <= extent.place <= extent.place + extent.length <= device.size
            with contextlib.suppress(NtfsError):
                for piece in itertools.islice(volume.read_stream(file, stream), 3):
                    assert len(piece) <= 1 << 20
    for damage in volume.damage:
        assert "\n" not in damage.why
    for step in (volume.used, volume.metadata):
        with contextlib.suppress(NtfsError):
            for place, length in step():
                assert 0 <= place <= place + length <= device.size
    with contextlib.suppress(NtfsError):
        assert volume.root.paths == ("",)
    return count


def mutate(record: bytearray, chance: random.Random) -> None:
    """Change one thing: most often within what is in use, often to what is special."""
    in_use = int.from_bytes(record[24:28], "little")
    end = in_use if 64 < in_use <= RECORD and chance.random() < 0.95 else RECORD
    kind = chance.randrange(5)
    at = chance.randrange(end)
    if kind == 0:
        record[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        record[at] = chance.choice(SPECIAL)
    elif kind == 2:
        width = chance.choice((2, 4, 8))
        at &= ~(width - 1)
        value = chance.choice(WIDE) & (1 << 8 * width) - 1
        record[at : at + width] = value.to_bytes(width, "little")
    elif kind == 3:
        length = min(chance.randrange(1, 32), RECORD - at)
        record[at : at + length] = chance.randbytes(length)
    else:
        length = min(chance.randrange(1, 64), RECORD - at)
        other = chance.randrange(RECORD - length)
        record[at : at + length] = record[other : other + length]


def mutations(walks: int, each: int, seed: int) -> None:
    device = demo_volume()
    place, count = table_of(device)
    chance = random.Random(seed)
    numbers = [n for n in range(count) if n < 16 or n >= 24]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = set()
    for walk in range(walks):
        changes: dict[int, bytes] = {}
        for _ in range(each):
            # The system's own files are few and all depends on them.
            number = chance.randrange(12) if chance.random() < 0.3 else chance.choice(numbers)
            at = place + number * RECORD
            data = changes.get(at) or device.read_at(at, RECORD)
            torn = chance.random() < 0.1 or data[:4] != b"FILE" or data[4:8] != b"\x30\0\3\0"
            record = bytearray(data if torn else undo_fix_up(data))
            mutate(record, chance)
            whole = record[4:8] == b"\x30\0\3\0" and not torn
            changes[at] = fix_up(bytes(record)) if whole else bytes(record)
        begun = time.monotonic()
        try:
            files.add(exercise(device.change(changes)))
        except BaseException as error:
            error.add_note(f"seed {seed}, walk {walk}")
            raise
        assert time.monotonic() - begun < BOUND, f"seed {seed}, walk {walk}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown << 10 < MEMORY
    # Mutations neither spare every volume nor ruin each.
    assert 105 in files
    assert len(files) > 5


def test_the_volume_without_mutations_is_whole() -> None:
    assert exercise(demo_volume()) == 105
    assert Volume.open(demo_volume()).damage == []


def test_3_000_mutations_of_file_records() -> None:
    mutations(walks=200, each=15, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10, 20))
def test_100_000_mutations_of_file_records(seed: int) -> None:
    mutations(walks=2500, each=4, seed=seed)


def test_mutations_of_the_boot_sector() -> None:
    device = demo_volume()
    boot = device.read_at(0, 512)
    chance = random.Random(2)
    for _ in range(300):
        changed = bytearray(boot)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(3, 0x50)] = chance.choice((*SPECIAL, chance.randrange(256)))
        exercise(device.change({0: bytes(changed)}))
