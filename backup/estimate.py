"""What a backup would come to: nothing is snapshot, written or moved to learn it."""

from collections.abc import Iterator

from serverfree.backup.archive.member import Reason
from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.contents import Contents, read_contents
from serverfree.backup.device import DiskDevice
from serverfree.backup.job import Request
from serverfree.backup.pieces import Piece
from serverfree.backup.planner import can_digest, plan_backup
from serverfree.backup.report import Estimate
from serverfree.backup.site import Site
from serverfree.initiator.copy_plan import USUAL_LIMITS
from serverfree.initiator.xcopy import identify, limits_of


def estimate(request: Request) -> Estimate:
    """Plan a backup of the disk as it is now, without the catalog that it would end with.

    The copy manager is asked what it can do where one is named; else the usual is assumed.
    """
    found = Estimate()
    with Site(request.mover, request.tape) as site:
        disk, tape = identify(site.meter, request.disk), identify(site.meter, request.tape)
        limits = USUAL_LIMITS if request.mover is None else limits_of(site.manager)
        device = DiskDevice(site.disk(request.disk))
        contents = read_contents(device, request.wish)
        found.metadata_bytes, found.extents = device.read, contents.extents
        found.warnings += contents.remarks
        commands = plan_backup(
            _pieces(contents, found), disk, tape, limits, request.tape_block,
            request.command_size, can_digest(limits),
        )  # fmt: skip
        for command in commands:
            found.commands += 1
            found.segments += len(command.copy.segments)
            found.moved_bytes += command.moved
            found.inline_bytes += command.inline
            found.archive_bytes += command.length
        found.tape_blocks = -(-found.archive_bytes // request.tape_block)
        found.skipped = contents.skipped
    return found


def _pieces(contents: Contents, found: Estimate) -> Iterator[Piece]:
    writer = ArchiveWriter()
    yield from writer.begin({})
    for member, pieces in contents.parts(writer):
        yield from pieces
        found.members += 1
        if member.reason is not Reason.CATALOG:
            found.server_bytes += member.server_bytes
    yield from writer.end()
