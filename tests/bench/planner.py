"""How many extents a second become commands on the wire, and come back: no server takes part.

Extents of 4 KiB to 64 KiB that do not lie together, eight to a file with header and attributes;
commands are packed, as sending them would. Seconds are those of the processor: what else the
machine does is not counted. `python tests/bench/planner.py`.
"""

import random
import statistics
import time
from collections.abc import Iterator

from serverfree.backup.archive.files import FileMembers
from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.files import Extent, File, Stream
from serverfree.backup.pieces import FromDisk, Piece, ToDisk
from serverfree.backup.planner import plan_backup, plan_restore
from serverfree.initiator.copy_plan import DEFAULT_TAPE_BLOCK, USUAL_LIMITS, Endpoint
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.designator import Designator, DesignatorType
from serverfree.scsi.inquiry import DeviceType

EXTENTS = 200_000
CLUSTER = 4096
PER_FILE = 8
TAPE = Endpoint(Designator(DesignatorType.NAA, bytes(8)), DeviceType.TAPE)
DISK = Endpoint(
    Designator(DesignatorType.NAA, b"12345678"), DeviceType.DISK, 32 * EXTENTS * 8 + 256, 512
)


def limits() -> OperatingParameters:
    types = {*USUAL_LIMITS.descriptor_types, 0x08, 0x09}
    usual = USUAL_LIMITS
    return OperatingParameters(
        maximum_cscd_count=usual.maximum_cscd_count,
        maximum_segment_count=usual.maximum_segment_count,
        maximum_descriptor_list_length=usual.maximum_descriptor_list_length,
        maximum_inline_data_length=usual.maximum_inline_data_length,
        maximum_stream_transfer_size=usual.maximum_stream_transfer_size,
        descriptor_types=tuple(sorted(types)),
    )


def volume(extents: int) -> list[File]:
    """Files of a volume on which nothing lies together."""
    source = random.Random(1)
    files = []
    for number in range(extents // PER_FILE):
        found, at = [], 0
        for each in range(PER_FILE):
            length = source.randint(1, 16) * CLUSTER
            found.append(Extent(at, length, (number * PER_FILE + each) * 32 * CLUSTER))
            at += length
        stream = Stream("", at - 100, at - 100, extents=tuple(found))
        attributes = {"ntfs_acl": bytes(80), "ntfs_attrib": bytes(4), "ntfs_times": bytes(32)}
        path = f"a folder/of files/number {number}"
        files.append(File(number, 1, False, (path,), number * 10**9 + 7, (stream,), attributes))
    return files


def pieces_of(files: list[File]) -> Iterator[Piece]:
    writer = ArchiveWriter()
    made = FileMembers(writer, 0, lambda file, stream: iter(()))
    for _, pieces in made.members(files):
        yield from pieces


def measure(extents: int = EXTENTS) -> dict[str, float]:
    """Return extents a second, by what is done with them."""
    files = volume(extents)
    started = time.process_time()
    for command in plan_backup(pieces_of(files), DISK, TAPE, limits(), DEFAULT_TAPE_BLOCK):
        command.copy.pack()
    backup = time.process_time() - started
    places = [
        FromDisk(each.place, each.length) for file in files for each in file.streams[0].data()
    ]
    started = time.process_time()
    for command in plan_backup(places, DISK, TAPE, limits(), DEFAULT_TAPE_BLOCK):
        command.copy.pack()
    image = time.process_time() - started
    wanted, at = [], 0
    for place in places:
        wanted.append(ToDisk(at, place.length // 512 * 512, place.offset))
        at += place.length + 2048
    started = time.process_time()
    for command in plan_restore(wanted, TAPE, DISK, limits(), DEFAULT_TAPE_BLOCK, 0):
        command.copy.pack()
    restore = time.process_time() - started
    return {
        "files to commands": extents / backup,
        "extents of an image to commands": extents / image,
        "restore to commands": extents / restore,
    }


def main() -> None:
    runs = [measure() for _ in range(3)]
    for name in runs[0]:
        print(f"{name:32} {statistics.median(run[name] for run in runs):>10,.0f} extents/s")


if __name__ == "__main__":
    main()
