"""Is what lies on the tape what was written? Read again, and held against the catalog's digests.

The copy manager reads and digests, and only 32 bytes a range come here; or this machine reads
everything itself. Nothing is written.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from serverfree.backup.cartridge import check_cartridge
from serverfree.backup.catalog.facts import Backup, CatalogError, Digest, State
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.copying import may_pass, one_line
from serverfree.backup.errors import BackupError
from serverfree.backup.planner import DIGEST_LENGTH, Check, can_digest, plan_verify
from serverfree.backup.site import Site
from serverfree.backup.tape_blocks import TapeBlocks
from serverfree.backup.verify_headers import check_headers
from serverfree.backup.verify_report import BadRange, VerifyReport
from serverfree.backup.watching import Watcher
from serverfree.initiator.copy_plan import Endpoint, Step
from serverfree.initiator.tape import Tape
from serverfree.initiator.xcopy import CopyFailed, identify, limits_of, run_step
from serverfree.scsi.copy_results import OperatingParameters

_NAMED = 20
"""Members named of a bad range; the rest are counted."""


def verify(
    catalog: Catalog,
    site: Site,
    backup: Backup,
    *,
    through_server: bool = False,
    watcher: Watcher | None = None,
) -> VerifyReport:
    """Read a backup's ranges again and return what differs.

    Raises BackupError where nothing can be compared, WrongCartridge, and what the units say.
    """
    watcher = watcher or Watcher()
    digests = catalog.digests(backup)
    _check_comparable(backup, digests)
    started = time.monotonic()
    tape = site.tape
    tape.ready()
    check_cartridge(tape, backup)
    tape.locate(backup.facts.first_block, backup.facts.partition)
    ranges = [(each.archive_offset, each.length) for each in digests]
    checked = sum(length for _, length in ranges)
    watcher.phase("reading the tape again")
    if through_server:
        found = _read_here(tape, backup, ranges, lambda done: watcher.moved(done, checked))
    else:
        found = _read_by_manager(site, backup, ranges, watcher, checked)
    bad = [
        BadRange(digest.archive_offset, digest.length, answer or "the content differs")
        for digest, answer in zip(digests, _compare(digests, found), strict=True)
        if answer is not None
    ]
    for each in bad:
        _name_members(catalog, backup, each)
    headers = 0
    if through_server:
        watcher.phase("reading the headers")
        headers, wrong = check_headers(
            catalog, backup, TapeBlocks(tape, backup.facts.first_block, backup.facts.tape_block)
        )
        bad += wrong
    return VerifyReport(
        backup.id,
        "server" if through_server else "copy manager",
        len(ranges),
        checked,
        headers,
        max(0, backup.size - checked),
        site.meter.sent + site.meter.received,
        time.monotonic() - started,
        bad,
    )


def _check_comparable(backup: Backup, digests: Sequence[Digest]) -> None:
    if backup.state is not State.DONE:
        raise CatalogError(f"backup {backup.id} is {backup.state.value}: nothing to verify")
    if not digests:
        raise BackupError(
            f"the catalog has no digests of backup {backup.id}: the copy manager that wrote it "
            "has told none, so there is nothing to compare with"
        )


_Answer = bytes | str
"""The SHA-256 that was found, or why none was."""


def _compare(digests: Sequence[Digest], found: Iterable[_Answer]) -> Iterator[str | None]:
    """Yield None for what is as written, else why it is not; empty where only the bytes differ."""
    for digest, answer in zip(digests, found, strict=True):
        if isinstance(answer, str):
            yield answer
        else:
            yield None if answer == digest.sha256 else ""


# ---------------------------------------------------------------------- by the copy manager


def _read_by_manager(
    site: Site, backup: Backup, ranges: list[tuple[int, int]], watcher: Watcher, total: int
) -> Iterator[_Answer]:
    limits = limits_of(site.manager)
    if not can_digest(limits):
        raise BackupError(
            "the copy manager makes no digests (segment C0h): verify with --through-server"
        )
    tape = identify(site.meter, site.tape_url)
    done = 0
    for check in _plan(backup, ranges, tape, limits):
        yield from _run(site, backup, check, tape, limits)
        done += check.size
        watcher.moved(done, total)


def _plan(
    backup: Backup, ranges: Iterable[tuple[int, int]], tape: Endpoint, limits: OperatingParameters
) -> Iterator[Check]:
    facts = backup.facts
    return plan_verify(ranges, tape, limits, facts.tape_block, facts.first_block)


def _run(
    site: Site, backup: Backup, check: Check, tape: Endpoint, limits: OperatingParameters
) -> Iterator[_Answer]:
    """Run one command; if it fails, each of its ranges alone, to tell the bad from the good."""
    try:
        run_step(site.manager, Step(check.copy, check.size), 0, 0, None)
        held = site.manager.held_data(check.copy.list_identifier)
    except CopyFailed as failure:
        if may_pass(failure):  # it says nothing about the tape
            raise
        if len(check.ranges) == 1:
            yield f"cannot be read: {one_line(failure)}"
            return
        for each in check.ranges:
            for alone in _plan(backup, [each], tape, limits):
                yield from _run(site, backup, alone, tape, limits)
        return
    for at in range(0, len(check.ranges) * DIGEST_LENGTH, DIGEST_LENGTH):
        yield held[at : at + DIGEST_LENGTH]


# ---------------------------------------------------------------------- by this machine


def _read_here(
    tape: Tape, backup: Backup, ranges: list[tuple[int, int]], moved: Callable[[int], None]
) -> Iterator[_Answer]:
    """Yield the digest of each range; a range in which a block cannot be read has none."""
    facts = backup.facts
    reader = TapeBlocks(tape, facts.first_block, facts.tape_block)
    done = 0
    for start, length in ranges:
        digest = hashlib.sha256()
        why = ""
        at = start
        while at < start + length and not why:
            block, skip = divmod(at, facts.tape_block)
            size = min(facts.tape_block - skip, start + length - at)
            got = reader.read(block)
            if isinstance(got, str):
                why = got
            elif skip + size > len(got):
                why = f"block {facts.first_block + block} is shorter than what was written"
            else:
                digest.update(got[skip : skip + size])
                at += size
                moved(done + at - start)
        done += length
        yield why or digest.digest()


# ---------------------------------------------------------------------- what it means


def _name_members(catalog: Catalog, backup: Backup, bad: BadRange) -> None:
    """Find out which members lie in a bad range, in part or whole."""
    start, end = bad.archive_offset, bad.archive_offset + bad.length
    for entry in catalog.members(backup):
        member = entry.member
        # A file inside an image has data but no place of its own.
        if (member.header_offset < end and member.end_offset > start) or any(
            each.archive_offset < end and each.archive_offset + each.length > start
            for each in member.data
        ):
            if len(bad.members) < _NAMED:
                bad.members.append(entry.shown)
            else:
                bad.more += 1
