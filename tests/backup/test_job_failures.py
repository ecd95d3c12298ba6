"""Whatever fails: it is said, nothing is lost that was there, and the next backup works."""

import itertools
import os
import signal
import subprocess
import threading
import time

import pytest

from serverfree.backup.array import Array, SnapshotTimeout
from serverfree.backup.catalog.facts import Mode, State
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.copying import Patience
from serverfree.backup.errors import BackupError
from serverfree.backup.job import JobFailed, back_up
from serverfree.backup.site import Site
from serverfree.backup.source import Quiet
from serverfree.backup.tape_file import TapeUnusable
from serverfree.backup.verify import verify
from serverfree.backup.watching import Watcher
from serverfree.cli.processes import SERVERFREE
from support import backups

pytestmark = [pytest.mark.peer, pytest.mark.served]

MANY = {"command_size": 512 << 10}  # commands of two tape blocks, of which there are many
PATIENT = {"patience": Patience(tries=6, pause=0.2)}


@pytest.fixture(scope="module", autouse=True)
def token():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVERFREE_TOKEN", backups.TOKEN)
        yield


@pytest.fixture(scope="module")
def san(ntfs_images, tmp_path_factory):
    """One for all: whatever a test breaks has to serve the next one."""
    folder = tmp_path_factory.mktemp("san")
    with backups.san(folder, ntfs_images.get("plain").copy(folder / "disk.img")) as served:
        yield served


class Act(Watcher):
    """Does something once, when the third command has ended."""

    def __init__(self, act):
        self._act, self._count = act, itertools.count(1)

    def moved(self, done, total):
        if next(self._count) == 3:
            self._act()


def state_of(san, number=-1):
    with Catalog.open(san.catalog) as catalog:
        return catalog.backups()[number]


def check_good(san, report):
    """The backup is on tape as the catalog has it, and GNU tar can list it."""
    with Catalog.open(san.catalog) as catalog, Site(san.manager, san.tape) as site:
        assert verify(catalog, site, catalog.backup(report.backup)).good
    archive = san.tape_file(report.file, san.folder / "good.tar")
    assert "volume.img" in backups.tar("-tf", archive)


def snapshots(san):
    with Array(san.array) as array:
        return [each.name for each in array.snapshots()]


def test_without_a_quiet_period_nothing_is_written(san):
    first = san.back_up(Mode.IMAGE)
    stop, writing = threading.Event(), threading.Event()

    def write():
        with Site(None, san.tape) as site:
            disk = site.disk(san.disk)
            block = disk.read(100, 8)
            while not stop.wait(0.05):
                disk.write(100, block)
                writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert writing.wait(10)
        with san.drive() as tape:
            tape.rewind()
        with pytest.raises(SnapshotTimeout) as caught:
            san.back_up(Mode.IMAGE, array=san.array, quiet=Quiet(3.0, 3.2))
        assert (caught.value.quiet, caught.value.timeout) == (3.0, 3.2)
        with san.drive() as tape:
            assert tape.position().block == 0, "the tape was not moved"
    finally:
        stop.set()
        writer.join()
    failed = state_of(san)
    assert failed.state is State.FAILED
    assert len(san.tape_files()) == first.file + 2
    check_good(san, first)
    check_good(san, san.back_up(Mode.IMAGE, array=san.array, quiet=Quiet(0.6, 10)))


@pytest.mark.parametrize(
    "which", ["mover", pytest.param("storage", marks=pytest.mark.long), "backup"]
)
def test_a_server_that_comes_back_lets_a_backup_go_on_where_it_was(san, which):
    server = getattr(san, which)

    def restart():
        server.kill()
        timer.start()

    timer = threading.Timer(0.5, server.start)
    report = back_up(san.request(Mode.IMAGE, **MANY, **PATIENT), Act(restart))
    timer.join()
    assert any("went on from tape block" in warning for warning in report.warnings)
    assert report.digests == report.commands
    check_good(san, report)


def test_without_its_mover_a_backup_ends_and_the_tape_stays_appendable(san):
    first = san.back_up(Mode.IMAGE)
    with pytest.raises(JobFailed, match="closed by a filemark"):
        back_up(san.request(Mode.IMAGE, array=san.array, **MANY), Act(san.mover.kill))
    assert state_of(san).state is State.FAILED
    assert snapshots(san) == []
    san.mover.start()
    again = san.back_up(Mode.IMAGE)
    assert again.warnings == []
    assert again.file == first.file + 2
    check_good(san, first)
    check_good(san, again)


def test_an_interrupt_tidies_up(san):
    first = san.back_up(Mode.IMAGE)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(san.request(Mode.IMAGE, array=san.array, **MANY), Act(interrupt))
    assert state_of(san).state is State.FAILED
    assert snapshots(san) == []
    again = san.back_up(Mode.IMAGE)
    assert (again.warnings, again.file) == ([], first.file + 2)


def test_an_interrupt_is_over_soon_though_the_mover_hangs(san):
    first = san.back_up(Mode.IMAGE)
    began = []

    def interrupt():
        os.kill(san.mover.pid, signal.SIGSTOP)
        threading.Timer(1.0, interrupt_main).start()

    def interrupt_main():
        began.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            back_up(san.request(Mode.IMAGE, array=san.array, **MANY), Act(interrupt))
        assert time.monotonic() - began[0] < 10
    finally:
        signal.signal(signal.SIGINT, before)
        os.kill(san.mover.pid, signal.SIGCONT)
    assert "the copy manager does not answer" in caught.value.__notes__[0]
    assert state_of(san).state is State.FAILED
    assert snapshots(san) == []
    again = san.back_up(Mode.IMAGE)
    assert (again.warnings, again.file) == ([], first.file + 2)
    check_good(san, again)


def test_a_second_backup_keeps_away_from_a_cartridge_that_is_written_to(san):
    told = []

    def intrude():
        with pytest.raises(BackupError, match="is being written to this cartridge") as caught:
            san.back_up(Mode.FILES)
        told.append(str(caught.value))

    report = back_up(san.request(Mode.IMAGE, **MANY), Act(intrude))
    assert report.backup in told[0]
    assert report.warnings == []
    check_good(san, report)


def test_a_storage_system_that_is_gone_ends_a_backup(san):
    with pytest.raises(JobFailed, match="closed by a filemark"):
        back_up(san.request(Mode.IMAGE, **MANY), Act(san.storage.kill))
    assert state_of(san).state is State.FAILED
    san.storage.start()
    check_good(san, san.back_up(Mode.IMAGE))


def test_a_tape_drive_that_stays_away_is_told_and_closed_by_the_next_backup(san):
    first = san.back_up(Mode.IMAGE)
    with pytest.raises(JobFailed, match=r"could not be closed.*next backup"):
        back_up(san.request(Mode.IMAGE, **MANY), Act(san.backup.kill))
    san.backup.start()
    again = san.back_up(Mode.IMAGE)
    assert "not finished" in again.warnings[0]
    check_good(san, first)
    check_good(san, again)


def test_a_full_cartridge_keeps_what_it_had(ntfs_images, tmp_path):
    disk = ntfs_images.get("plain").copy(tmp_path / "disk.img")
    with backups.san(tmp_path, disk, capacity="8MiB") as san:
        first = san.back_up(Mode.IMAGE)
        with pytest.raises(JobFailed, match=r"cartridge is full.*load another") as caught:
            san.back_up(Mode.IMAGE, array=san.array, **MANY)
        assert "filemark" in str(caught.value) or "taken back" in str(caught.value)
        assert snapshots(san) == []
        assert state_of(san).state is State.FAILED
        check_good(san, first)
        assert san.tape_files()[-1] == [], "the data ends with a filemark"
        with pytest.raises(TapeUnusable, match=r"cartridge is full.*load another"):
            san.back_up(Mode.IMAGE)
        over = san.back_up(Mode.IMAGE, overwrite_tape=True)
        assert over.first_block == 0
        check_good(san, over)


def test_a_server_that_is_killed_leaves_a_tape_that_the_next_backup_closes(san, monkeypatch):
    first = san.back_up(Mode.IMAGE)
    words = [
        *SERVERFREE,
        "backup",
        *("--mover", str(san.manager), "--disk", str(san.disk), "--tape", str(san.tape)),
        *("--array", san.array, "--quiet", "0", "--catalog", str(san.catalog)),
    ]
    # Where a command has no end: the mover stands still.
    os.kill(san.mover.pid, signal.SIGSTOP)
    try:
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        while "reading the file system" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.5)
        process.kill()
        process.wait()
        process.stderr.close()
    finally:
        os.kill(san.mover.pid, signal.SIGCONT)
    abandoned = state_of(san)
    assert abandoned.state is State.ABANDONED
    assert snapshots(san) == [f"backup-{abandoned.id}"]
    with san.drive() as tape:  # what a copy leaves that nobody has finished
        tape.end_of_data()
        tape.write_block(b"part of an archive".ljust(256 << 10))
    again = san.back_up(Mode.IMAGE, array=san.array)
    assert any("not finished" in warning for warning in again.warnings)
    assert any(f"deleted snapshot backup-{abandoned.id}" in text for text in again.warnings)
    assert snapshots(san) == []
    check_good(san, first)
    check_good(san, again)


def test_what_cannot_be_read_any_more_is_named(san):
    report = san.back_up(Mode.IMAGE, **MANY)
    with san.drive() as tape:  # the cartridge was overwritten from its fifth block on
        tape.locate(report.first_block + 5)
        tape.write_filemarks()
    for through_server in (False, True):
        with Catalog.open(san.catalog) as catalog, Site(san.manager, san.tape) as site:
            backup = catalog.backup(report.backup)
            found = verify(catalog, site, backup, through_server=through_server)
        assert found.bad[0].archive_offset == 4 * (256 << 10)
        # Two commands fit before it; of the headers, that of the catalog lies behind it.
        assert len(found.bad) == report.commands - 2 + through_server
        assert "volume.img" in found.bad[0].members
