"""What a catalog of many files costs: written, asked, packed for the tape and taken back.

Files have an access list, times and one extent each; a tenth are resident, with content that does
not compress. The catalog lies on the disk, every batch of it synced. `python tests/bench/catalog.py
[FILES]`.
"""

import io
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from serverfree.backup.archive.member import Data, Kind, Member
from serverfree.backup.catalog.facts import BackupFacts, Mode
from serverfree.backup.catalog.packed import TRAILER, Trailer, enter, pack
from serverfree.backup.catalog.store import Catalog

FILES = 100_000
LOOKUPS = 1000

Result = TypeVar("Result")


def members(count: int) -> Iterator[Member]:
    """Files of a volume, a hundred to a folder, in the order of the archive."""
    source = random.Random(1)
    acls = [source.randbytes(120) for _ in range(20)]
    at = 0
    for number in range(count):
        resident = number % 10 == 0
        size = source.randint(1, 700) if resident else source.randint(1, 100_000)
        yield Member(
            path(number),
            Kind.FILE,
            size,
            1_700_000_000 * 10**9 + number,
            header_offset=at,
            end_offset=at + 1024 + size,
            data=() if resident else (Data(0, size, at + 1024),),
            attributes={
                "ntfs_acl": source.choice(acls),
                "ntfs_times": source.randbytes(8) * 4,
                "ntfs_attrib": b"\x20\0\0\0",
            },
            number=number,
            sequence=1,
            resident=source.randbytes(size) if resident else None,
        )
        at += 1024 + size


def path(number: int) -> str:
    return f"Users/folder {number // 10_000}/of files {number // 100}/document {number}.txt"


def measure(count: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Return seconds of the clock, and MB where the name says so."""

    def timed(run: Callable[[], Result]) -> tuple[float, Result]:
        begun = clock()
        result = run()
        return clock() - begun, result

    found: dict[str, float] = {}
    made = list(members(count))
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one.sqlite", Path(folder) / "two.sqlite"
        with Catalog.open(one) as catalog, Catalog.open(two) as other:
            writer = catalog.begin(BackupFacts(name="bench", mode=Mode.FILES, created=1))
            found["write"], _ = timed(lambda: writer.add_members(made))
            backup = writer.finish({}, blocks=1, size=1)
            found["MB"] = one.stat().st_size / 1e6
            source = random.Random(2)
            wanted = [path(source.randrange(count)) for _ in range(LOOKUPS)]
            seconds, hits = timed(lambda: [len(catalog.at(backup, each)) for each in wanted])
            assert hits == [1] * LOOKUPS
            found["look a path up"] = seconds / LOOKUPS
            found["find by pattern"], _ = timed(lambda: list(catalog.find("*7.txt")))
            found["read all"], _ = timed(lambda: sum(1 for _ in catalog.members(backup)))
            found["pack"], packed = timed(lambda: pack(catalog, backup))
            found["MB packed"] = len(packed) / 1e6
            trailer = Trailer.unpack(packed[-TRAILER:])
            assert trailer is not None
            found["check and take over"], again = timed(
                lambda: enter(other, io.BytesIO(packed), trailer)
            )
            assert other.count(again) == count
    return found


if __name__ == "__main__":
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    print(f"a catalog of {files} files")
    for name, value in measure(files).items():
        unit = "MB" if name.startswith("MB") else "s"
        print(
            f"{name:<20} {value:10.6f} {unit}"
            if value < 0.01
            else f"{name:<20} {value:10.2f} {unit}"
        )
