"""Plans done by our servers as processes: a disk, a tape, and a data mover between them."""

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from serverfree.backup.archive.files import FileMembers, in_tape_order
from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.files import Extent, File, Stream
from serverfree.backup.pieces import ToDisk
from serverfree.backup.planner import can_digest, plan_backup, plan_restore, plan_verify
from serverfree.backup.site import Site
from serverfree.initiator.copy_plan import Step
from serverfree.initiator.tape import Stop
from serverfree.initiator.xcopy import identify, limits_of, run_step
from support import servers
from support.archives import true_content
from support.peers import require

pytestmark = [pytest.mark.served, pytest.mark.peer]

MIB = 1 << 20
SIZE = 8 * MIB
TAPE_BLOCK = 20 * 512
COMMAND = 300_000
LIBRARY = "iqn.2026-11.com.example:library"


def some_files(start: int) -> list[File]:
    """Files in pieces all over a volume that begins there, with holes, and valid to any byte."""
    source = random.Random(9)
    clusters = list(range((SIZE - start) // 4096))
    source.shuffle(clusters)
    files = []
    for number in range(40):
        extents, at = [], 0
        for _ in range(source.randint(1, 9)):
            length = source.randint(1, 8)
            place = source.choice(clusters) * 4096
            length = min(length * 4096, SIZE - start - place)
            extents.append(Extent(at, length, place))
            at += length + source.choice((0, 0, 1, 30)) * 4096
        size = at - source.randint(0, 4095)
        valid = source.choice((size, max(0, size - 5000), size // 2))
        streams = [Stream("", size, valid, extents=tuple(extents))]
        if number % 5 == 0:
            content = source.randbytes(100 * number)
            streams.append(Stream("more", len(content), len(content), resident=content))
        files.append(
            File(number, 1, False, (f"f/{number}",), number * 10**9 + 1, tuple(streams), {})
        )
    files.append(File(99, 1, True, ("f",), 0))
    return files


@pytest.mark.parametrize("block", [512, 4096])
def test_an_archive_goes_to_tape_and_comes_back_without_passing_here(tmp_path, block):
    require("tar")
    image = servers.random_file(tmp_path / "disk.img", SIZE)
    disk = image.read_bytes()
    start = 1 * MIB
    files = some_files(start)
    with (
        servers.target("--disk", f"disk={image},block={block}") as storage,
        servers.target(
            "--iqn", LIBRARY, "--tape", f"tape={tmp_path / 'tape'},capacity=1GiB"
        ) as library,
        servers.datamover(storage, library) as mover,
    ):
        manager_url = next(iter(mover.units.values())).url
        with Site(manager_url, library["tape"].url) as site:
            ends = [identify(site.meter, each.url) for each in (storage["disk"], library["tape"])]
            limits = limits_of(site.manager)
            assert can_digest(limits)
            # The archive does not begin where the tape does.
            site.tape.rewind()
            site.tape.write_block(b"something else")
            site.tape.write_filemarks()
            first = site.tape.position().block

            writer, members = ArchiveWriter(), []
            made = FileMembers(writer, start, lambda file, stream: iter(()))

            def pieces():
                yield from writer.begin({"id": "test"})
                for member, more in made.members(in_tape_order(files)):
                    members.append(member)
                    yield from more
                yield from writer.end()

            before = site.meter.sent + site.meter.received
            ranges, digests, moved = [], [], 0
            plan = plan_backup(pieces(), *ends, limits, TAPE_BLOCK, COMMAND, digests=True)
            for command in plan:
                run_step(site.manager, Step(command.copy, command.length), 0, 0, None)
                held = site.manager.held_data(command.copy.list_identifier)
                ranges.append((command.archive_offset, command.length))
                digests.append(held)
                moved += command.moved
            assert len(ranges) > 5
            assert moved == sum(
                data.length for member in members for data in member.data if not member.reason
            )
            assert site.meter.sent + site.meter.received - before < moved // 4

            # Read by the server, as anybody could: tar is the judge of what it is.
            archive = read_file(site, first)
            assert len(archive) == -(-writer.offset // TAPE_BLOCK) * TAPE_BLOCK
            expected = [hashlib.sha256(archive[at : at + length]).digest() for at, length in ranges]
            assert digests == expected
            check_with_tar(tmp_path, archive, files, disk, start)

            seen = []
            for check in plan_verify(ranges, ends[1], limits, TAPE_BLOCK, first, 10**6):
                run_step(site.manager, Step(check.copy, check.size), 0, 0, None)
                raw = site.manager.held_data(check.copy.list_identifier)
                seen += [raw[at : at + 32] for at in range(0, len(raw), 32)]
            assert seen == expected

            # Back onto the disk, which holds something else by now: every second file, in order.
            wanted, expected_disk = [], bytearray(SIZE)
            for member in members:
                if member.stream or member.number is None or member.number % 2:
                    continue
                file = files[member.number]
                for data in member.data:
                    for extent in file.streams[0].data():
                        if not data.start <= extent.start < data.start + data.length:
                            continue
                        at = data.archive_offset + extent.start - data.start
                        wanted.append(ToDisk(at, extent.length, start + extent.place))
            for each in wanted:
                expected_disk[each.offset : each.offset + each.length] = disk[each.offset :][
                    : each.length
                ]
            with image.open("r+b") as other:
                other.write(bytes(SIZE))
            for through in (0, 1 << 20):
                plan = plan_restore(
                    wanted, ends[1], ends[0], limits, TAPE_BLOCK, first, COMMAND, through
                )
                for command in plan:
                    run_step(site.manager, Step(command.copy, command.moved), 0, 0, None)
                assert image.read_bytes() == expected_disk
                with image.open("r+b") as other:
                    other.write(bytes(SIZE))


def read_file(site: Site, first: int) -> bytes:
    """Read the tape file that begins at this block."""
    site.tape.locate(first)
    buffer = memoryview(bytearray(TAPE_BLOCK))
    blocks = []
    while not isinstance(block := site.tape.read_block(buffer), Stop):
        blocks.append(bytes(block))
    assert block is Stop.FILEMARK
    return b"".join(blocks)


def check_with_tar(
    folder: Path, archive: bytes, files: list[File], disk: bytes, start: int
) -> None:
    place = folder / "unpacked"
    place.mkdir()
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    for what in ("-t", "-x"):
        command = ["tar", "-C", str(place), what, "-b", str(TAPE_BLOCK // 512)]
        done = subprocess.run(
            command, input=archive, capture_output=True, timeout=60, env=environment
        )
        assert (done.returncode, done.stderr) == (0, b"")
    for file in files:
        for stream in file.streams:
            name = f"{file.path}:{stream.name}" if stream.name else file.path
            assert (place / name).read_bytes() == true_content(stream, disk, start)
