"""How fast the NTFS reader is beside The Sleuth Kit: 100,000 files walked, used clusters listed.

Both parse every record, names and paths, and list each stream's extents; ours keeps resident
content, ACLs and times as well. CPU seconds of one process with everything in the page cache, in
turns, medians. `python tests/bench/ntfs.py [IMAGE]` makes the volume unless one is named.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytsk3

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.case import Case

from serverfree.backup.device import FileDevice
from serverfree.backup.ntfs import Volume
from support.ntfs_images import make_image

ROUNDS = 5


def ours(image: Path) -> int:
    """Walk the volume; return the extents of its files."""
    with FileDevice(str(image)) as device:
        files = Volume.open(device).files()
        return sum(len(stream.extents) for file in files for stream in file.streams)


def theirs(image: Path) -> int:
    """Walk it with the C library, from the root."""
    volume = pytsk3.FS_Info(pytsk3.Img_Info(str(image)))
    found = 0
    waiting = [volume.open_dir("/")]
    while waiting:
        for entry in waiting.pop():
            meta, name = entry.info.meta, entry.info.name.name
            if meta is None or name in (b".", b"..") or name.startswith(b"$"):
                continue
            if meta.type == pytsk3.TSK_FS_META_TYPE_DIR:
                waiting.append(entry.as_directory())
                continue
            for attribute in entry:
                if int(attribute.info.type) == 128 and attribute.info.flags & 2:
                    found += sum(1 for _ in attribute)
    return found


def used(image: Path) -> int:
    """Return the extents in use, from $Bitmap."""
    with FileDevice(str(image)) as device:
        return len(Volume.open(device).used())


def cpu(run: Callable[[Path], int], image: Path) -> float:
    begun = time.process_time()
    run(image)
    return time.process_time() - begun


def case(folder: Path, rounds: int, *, quick: bool) -> Case:
    """Return the walk as a row of the table; `quick` takes a volume of few files."""
    image = folder / "volume.img"
    make_image(image, kind="fragmented_mft" if quick else "many")
    with FileDevice(str(image)) as device:
        records = Volume.open(device).table.count
    assert ours(image) == theirs(image)
    found = Case("NTFS walk, per CPU second", "records/s", "The Sleuth Kit")
    for _ in range(rounds):
        walk, rival = cpu(ours, image), cpu(theirs, image)
        found.ours.append(records / walk)
        found.theirs.append(records / rival)
        found.our_cpu.append(1e6 * walk / records)
        found.their_cpu.append(1e6 * rival / records)
    return found


def measure(image: Path) -> dict[str, float]:
    """Return the figures of one volume."""
    with FileDevice(str(image)) as device:
        records = Volume.open(device).table.count
    assert ours(image) == theirs(image)
    turns = [(cpu(ours, image), cpu(theirs, image), cpu(used, image)) for _ in range(ROUNDS)]
    walk, rival, bitmap = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        "records": records,
        "records/s": records / walk,
        "records/s, the best round": records / min(turn[0] for turn in turns),
        "records/s of The Sleuth Kit": records / rival,
        "ratio": rival / walk,
        "ms for the used clusters": 1000 * bitmap,
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="serverfree-bench-") as folder:
        if len(sys.argv) > 1:
            image = Path(sys.argv[1])
        else:
            image = Path(folder) / "many.img"
            make_image(image, kind="many")
        for name, value in measure(image).items():
            print(f"{name:30} {value:12,.2f}")


if __name__ == "__main__":
    main()
