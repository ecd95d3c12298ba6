"""`serverfree demo`: a server-free backup and restore of a real volume, on this machine alone.

Three processes on loopback ports (a storage system with two disks, a backup storage with a tape, a
data mover that reaches both) and this one, the server. A host is still writing to an NTFS volume
when its backup is asked for: the quiet gate waits, a snapshot is taken, the files go to tape. While
a second backup, of the whole volume, is under way, the host loses everything. The volume comes back
onto a disk that held random bytes, a single file besides, and GNU tar lists the tape.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TransferSpeedColumn
from rich.table import Table

from serverfree.backup.catalog.facts import Mode
from serverfree.backup.contents import Wish
from serverfree.backup.job import Request as BackupRequest
from serverfree.backup.job import back_up
from serverfree.backup.report import JobReport
from serverfree.backup.restore.job import Request as RestoreRequest
from serverfree.backup.restore.job import restore
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.wanted import RestoreError
from serverfree.backup.watching import Watcher
from serverfree.cli import demo_san
from serverfree.cli.demo_san import Advance, Host, San
from serverfree.cli.processes import ServerError
from serverfree.initiator.commands.common import interruptible
from serverfree.iscsi.names import Url

INTERRUPTED = 130
BUSY = 2.0  # seconds that the host goes on writing
LOST = "Documents/report.txt"
BACK = "Recovered"  # the folder of the volume that it comes back to
LINES = 8  # of the listing


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "demo",
        help="show a server-free backup and restore on this machine",
        description="Back up an NTFS volume from disk to tape and restore it by EXTENDED COPY, "
        "between servers started for it on loopback ports, and compare. Leaves nothing behind.",
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 if what came back from tape is what was on the disk."""
    console = Console(stderr=args.json)
    try:
        with interruptible(args, "stopping what was started"):
            return _demo(console, args.json)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped")
        return INTERRUPTED
    except ServerError as error:
        print(f"serverfree demo: {error}", file=sys.stderr)
        return 1


def _demo(console: Console, as_json: bool) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="serverfree-demo-") as folder,
        demo_san.san(Path(folder)) as san,
    ):
        console.print(f"storage system  {san.source.url}\n                {san.restored.url}")
        console.print(f"                {san.array} (management)")
        console.print(f"backup storage  {san.tape.url}")
        console.print(f"data mover      {san.mover.url}\n")
        with _progress(console) as progress:
            facts = _Mission(san, Path(folder), progress).run()
    if as_json:
        print(json.dumps(facts.json(), indent=2))
    else:
        _show(console, facts)
    return 0 if facts.volume_is_back and facts.file_is_back else 1


@dataclass(frozen=True, slots=True)
class Facts:
    """What came of it. `volume` and `restored` are the SHA-256 of each stream by its path."""

    files: JobReport
    image: JobReport
    onto_disk: RestoreReport
    one_file: RestoreReport
    volume: dict[str, str]
    restored: dict[str, str]
    file_is_back: bool
    members: list[str]
    """What the tape's first file holds, as tar lists it."""

    @property
    def volume_is_back(self) -> bool:
        """Whether all is there again, and nothing else."""
        return self.volume == self.restored

    def json(self) -> dict[str, object]:
        """Return the facts in the form of `--json`."""
        return {
            "backup": self.image.facts(),
            "backup_of_files": self.files.facts(),
            "restore": self.onto_disk.facts(),
            "restore_of_one_file": self.one_file.facts(),
            "sha256": {"volume": _digest(self.volume), "restored": _digest(self.restored)},
            "streams": len(self.volume),
            "volume_is_back": self.volume_is_back,
            "file_is_back": self.file_is_back,
            "members": len(self.members),
        }


class _Mission:
    """The steps in their order, each with a progress bar."""

    def __init__(self, san: San, folder: Path, progress: Progress) -> None:
        self._san, self._folder, self._progress = san, folder, progress
        self._catalog = folder / "catalog.sqlite"
        self._tape, self._mover = Url.parse(san.tape.url), Url.parse(san.mover.url)

    def run(self) -> Facts:
        san, size = self._san, demo_san.volume_size()
        host = Host(san.source)
        demo_san.fill(san.source, self._step("an NTFS volume onto the disk", size))
        volume = demo_san.contents(san.source, self._step("what is on it", size))
        with host.at_work(BUSY):
            files = self._back_up(Mode.FILES, _Bar(self._progress, "files to tape"))
        with host.losing_everything() as lose:
            image = self._back_up(Mode.IMAGE, _Bar(self._progress, "volume to tape", lose))
        demo_san.wipe(san.restored, self._step("random bytes onto a second disk", size))
        onto_disk = self._restore(image, "volume from tape to the second disk")
        restored = demo_san.contents(san.restored, self._step("what is on it", size))
        one_file, content = self._restore_one(files)
        members = self._list_tape()
        return Facts(
            files, image, onto_disk, one_file, volume, restored, content == volume[LOST], members
        )

    def _step(self, what: str, size: int | None = None) -> Advance:
        task = self._progress.add_task(what, total=size)
        return lambda done: self._progress.update(task, completed=done)

    def _back_up(self, mode: Mode, watcher: Watcher) -> JobReport:
        return back_up(
            BackupRequest(
                disk=Url.parse(self._san.source.url),
                tape=self._tape,
                mover=self._mover,
                array=self._san.array,
                wish=Wish(mode, name="volume"),
                catalog=self._catalog,
            ),
            watcher,
        )

    def _restore(
        self, backup: JobReport, what: str, *paths: str, folder: Path | None = None
    ) -> RestoreReport:
        return restore(
            RestoreRequest(
                backup=backup.backup,
                tape=self._tape,
                mover=self._mover,
                disk=None if folder else Url.parse(self._san.restored.url),
                folder=folder,
                paths=paths,
                into=BACK if paths and folder is None else "",
                catalog=self._catalog,
            ),
            _Bar(self._progress, what),
        )

    def _restore_one(self, backup: JobReport) -> tuple[RestoreReport, str]:
        """Bring one file back into the volume, or to a folder where NTFS-3G is not at hand."""
        try:
            report = self._restore(backup, "one file into the volume", LOST)
        except RestoreError as why:
            self._progress.console.print(f"one file goes to a folder: {why}", markup=False)
            folder = self._folder / "recovered"
            folder.mkdir()
            report = self._restore(backup, "one file to a folder", LOST, folder=folder)
            return report, _sha256(folder / LOST)
        now = demo_san.contents(self._san.restored, self._step("what is on it"))
        return report, now.get(f"{BACK}/{LOST}", now.get(f"{BACK}/{Path(LOST).name}", ""))

    def _list_tape(self) -> list[str]:
        archive = self._folder / "tape-file.tar"
        demo_san.read_tape_file(self._san.tape, 0, archive, self._step("the tape, for tar"))
        return _listing(archive)


def _digest(contents: dict[str, str]) -> str:
    """Return one SHA-256 for the contents of a volume."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _listing(archive: Path) -> list[str]:
    """Have GNU tar list an archive; where there is none, Python's."""
    program = shutil.which("tar")
    if program is None:
        with tarfile.open(archive) as opened:
            return opened.getnames()
    done = subprocess.run(
        [program, "-tvf", archive, "--quoting-style=literal"],
        capture_output=True, text=True, errors="replace", check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


class _Bar(Watcher):
    """A job as one bar. `moving` is called when bytes are on their way."""

    def __init__(
        self, progress: Progress, what: str, moving: Callable[[], None] = lambda: None
    ) -> None:
        self._progress, self._what, self._moving = progress, what, moving
        self._task = progress.add_task(what, total=None)

    def phase(self, text: str) -> None:
        self._describe(text)

    def waiting(self, quiet: float, waited: float) -> None:
        self._describe(f"quiet for {quiet:.1f} s of 3")

    def moved(self, done: int, total: int) -> None:
        self._moving()
        self._describe("")
        self._progress.update(self._task, completed=done, total=total or None)

    def _describe(self, text: str) -> None:
        self._progress.update(
            self._task, description=f"{self._what}: {text}" if text else self._what
        )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:52}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TransferSpeedColumn(),
        console=console,
    )


def _show(console: Console, facts: Facts) -> None:
    console.print(
        f"\nsnapshot of the first backup: {facts.files.consistency} consistent, taken after "
        f"{facts.files.snapshot_waited:.1f} s: the host was writing for {BUSY:.0f} of them"
    )
    console.print(f"tar lists {len(facts.members)} members of the first file on the tape:")
    for line in facts.members[:: max(1, len(facts.members) // LINES)]:
        console.print(f"  {line}", markup=False, highlight=False, no_wrap=True, overflow="ellipsis")
    table = Table(title="\nbytes that went by the data mover, and through the server")
    for column in ("", "data mover", "content", "ratio", "metadata", "time"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    jobs: dict[str, tuple[JobReport | RestoreReport, int]] = {
        "files to tape": (facts.files, facts.files.metadata_bytes),
        "volume to tape": (facts.image, facts.image.metadata_bytes),
        "volume to disk": (facts.onto_disk, facts.onto_disk.metadata_read),
        "one file back": (facts.one_file, facts.one_file.metadata_read),
    }
    for name, (job, metadata) in jobs.items():
        table.add_row(
            name,
            f"{job.moved_bytes:,}",
            f"{job.server_bytes:,}",
            f"{job.server_share:.4%}",
            f"{metadata:,}",
            f"{job.seconds:.1f} s",
        )
    console.print(table)
    if facts.volume_is_back:
        streams = len(facts.volume)
        console.print(
            f"the volume is back: {streams} files, streams and folders, SHA-256 of each equal",
            style="bold green",
        )
    else:
        console.print("THE RESTORED VOLUME DIFFERS FROM THE ONE BACKED UP", style="bold red")
    if facts.file_is_back:
        console.print(f"and {LOST} besides, from the backup of files", style="bold green")
    else:
        console.print(f"{LOST} IS NOT WHAT IT WAS", style="bold red")
