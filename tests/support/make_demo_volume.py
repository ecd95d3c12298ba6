"""Make cli/data/volume.img.xz, the NTFS volume that `serverfree demo` backs up.

Run once, as root, on a Linux machine with ntfs-3g: mkntfs makes the volume, the ntfs-3g driver
writes the files, so that every structure on it is as a real driver lays it out. The content is made
from a fixed seed and from this project's own texts:

    python tests/support/make_demo_volume.py
"""

import csv
import lzma
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKED = ROOT / "cli" / "data" / "volume.img.xz"
SIZE = 320 << 20
SEED = 20261122

WORDS = (
    "archive block cartridge copy designator descriptor disk drive extent filemark initiator "
    "inline journal library manager medium position record residue restore segment sense server "
    "snapshot source storage stream tape target transfer unit volume write"
)


def prose(generator: random.Random, words: int) -> str:
    """Return readable filler with sentences and paragraphs."""
    lines: list[str] = []
    while words > 0:
        count = min(words, generator.randint(6, 14))
        lines.append(" ".join(generator.choices(WORDS.split(), k=count)).capitalize() + ".")
        words -= count
    return "\n".join(lines) + "\n"


def write_documents(top: Path, generator: random.Random) -> None:
    """Small files (most of them resident in the MFT), folders, links, and two alternate streams."""
    documents = top / "Documents"
    letters = documents / "Letters"
    letters.mkdir(parents=True)
    for number in range(1, 61):
        letter = letters / f"letter {number:03}.txt"
        letter.write_text(prose(generator, generator.randint(10, 80)))
    shutil.copy(ROOT / "LICENSE", documents / "LICENSE.txt")
    (documents / "Übersicht 概要.txt").write_text(prose(generator, 40))
    (documents / "empty.txt").touch()
    (top / "Nothing here").mkdir()
    report = documents / "report.txt"
    report.write_text(prose(generator, 3000))
    (documents / "same report.txt").hardlink_to(report)
    # With streams_interface=windows a colon opens a named stream of the file.
    Path(f"{report}:Zone.Identifier").write_text("[ZoneTransfer]\r\nZoneId=3\r\n")
    Path(f"{report}:draft").write_text(prose(generator, 2000))


def write_sources(top: Path) -> None:
    """This project's own packages, as they are."""
    sources = top / "Projects" / "serverfree"
    for package in ("scsi", "iscsi"):
        shutil.copytree(
            ROOT / package, sources / package, ignore=shutil.ignore_patterns("__pycache__")
        )


def write_survey(top: Path, generator: random.Random) -> None:
    """A few megabytes of measurements, written turn by turn so that the files lie in many runs."""
    survey = top / "Projects" / "survey"
    survey.mkdir(parents=True)
    files = [(survey / f"station-{n}.csv").open("w", newline="") for n in range(4)]
    writers = [csv.writer(file) for file in files]
    for minute in range(60_000):
        for station, writer in enumerate(writers):
            writer.writerow((minute, station, (minute * (station + 3)) % 997, "ok"))
        if minute % 6_000 == 0:
            for file in files:
                file.flush()
    for file in files:
        file.close()
    with (survey / "sparse.dat").open("wb") as sparse:
        for offset in range(0, 16 << 20, 4 << 20):
            sparse.seek(offset)
            sparse.write(prose(generator, 800).encode())
        sparse.truncate(16 << 20)


def write_log(top: Path, generator: random.Random) -> None:
    """128 MiB that repeat with a period no block size divides: a block out of place is seen."""
    page = prose(generator, 16_000).encode()[:99_991]
    with (top / "events.log").open("wb") as log:
        for _ in range((128 << 20) // len(page)):
            log.write(page)


def make_volume(image: Path, mountpoint: Path) -> None:
    """Format the image and fill it through the ntfs-3g driver."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    geometry = ["-s", "512", "-p", "0", "-H", "0", "-S", "0"]
    subprocess.run(["mkntfs", "-F", "-Q", *geometry, "-L", "serverfree demo", image], **quiet)
    subprocess.run(["ntfs-3g", "-o", "streams_interface=windows", image, mountpoint], **quiet)
    try:
        generator = random.Random(SEED)
        write_documents(mountpoint, generator)
        write_sources(mountpoint)
        write_survey(mountpoint, generator)
        write_log(mountpoint, generator)
    finally:
        subprocess.run(["umount", mountpoint], check=True)
    subprocess.run(["ntfsfix", "--no-action", image], **quiet)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "volume.img")
        mountpoint = Path(folder, "mounted")
        mountpoint.mkdir()
        make_volume(image, mountpoint)
        PACKED.parent.mkdir(exist_ok=True)
        with image.open("rb") as source, lzma.open(PACKED, "wb", preset=6) as packed:
            shutil.copyfileobj(source, packed, 1 << 20)
    print(f"{PACKED}: {PACKED.stat().st_size >> 10} KiB for {SIZE >> 20} MiB")


if __name__ == "__main__":
    main()
