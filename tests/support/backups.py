"""Storage, backup storage and a data mover as processes of their own, and backups between them."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serverfree.backup.catalog.facts import Mode
from serverfree.backup.contents import Wish
from serverfree.backup.copying import Patience
from serverfree.backup.job import Request, back_up
from serverfree.backup.report import JobReport
from serverfree.backup.source import Quiet
from serverfree.cli.processes import Server
from serverfree.initiator.tape import Stop, Tape
from serverfree.initiator.urls import open_session
from serverfree.iscsi.names import Url
from support import servers

TOKEN = "token-of-the-tests"
MOST_BLOCK = 1 << 20


@dataclass
class San:
    """The servers, and the folder with what they serve and the catalog."""

    folder: Path
    storage: Server
    backup: Server
    mover: Server
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def disk(self) -> Url:
        return Url.parse(self.storage["disk"].url)

    @property
    def tape(self) -> Url:
        return Url.parse(self.backup["tape"].url)

    @property
    def manager(self) -> Url:
        return Url.parse(next(iter(self.mover.units.values())).url)

    @property
    def array(self) -> str:
        return self.storage["management"].url

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog.sqlite"

    def request(self, mode: Mode, *paths: str, **changes: Any) -> Request:
        """Return what asks for a backup without a snapshot; `changes` are those of the Request."""
        wish = Wish(mode, paths, changes.pop("excludes", ()), name="volume")
        request = Request(
            disk=self.disk,
            tape=self.tape,
            mover=self.manager,
            wish=wish,
            catalog=self.catalog,
            quiet=Quiet(0.0, 10.0),
            patience=Patience(tries=2, pause=0.1),
        )
        return replace(request, **self.options, **changes)

    def back_up(self, mode: Mode, *paths: str, **changes: Any) -> JobReport:
        return back_up(self.request(mode, *paths, **changes))

    @contextmanager
    def drive(self) -> Iterator[Tape]:
        """The tape, for a look at it."""
        session, lun = open_session(self.tape)
        with session:
            yield Tape(session.unit(lun))

    def tape_files(self) -> list[list[bytes]]:
        """Read the whole tape: files, each a list of blocks; the last one has no filemark."""
        files: list[list[bytes]] = [[]]
        buffer = memoryview(bytearray(MOST_BLOCK))
        with self.drive() as tape:
            tape.rewind()
            while (got := tape.read_block(buffer)) is not Stop.END_OF_DATA:
                if isinstance(got, Stop):
                    files.append([])
                else:
                    files[-1].append(bytes(got))
            tape.rewind()
        return files

    def tape_file(self, number: int, to: Path) -> Path:
        """Read one file off the tape."""
        to.write_bytes(b"".join(self.tape_files()[number]))
        return to


@contextmanager
def san(
    folder: Path,
    disk: Path,
    *,
    capacity: str = "1GiB",
    api: bool = True,
    disks: tuple[str, ...] = (),
    disk_options: str = "",
    **options: Any,
) -> Iterator[San]:
    """Serve a disk image and an empty tape, and more `disks`, with options, as on the command line.
    With `api` SERVERFREE_TOKEN has to be set.
    """
    storage = servers.target(
        *(
            "--disk",
            f"disk={disk},snapshots={folder / 'snapshots'}{',' * bool(disk_options)}{disk_options}",
        ),
        *(word for each in disks for word in ("--disk", each)),
        *(("--api", "127.0.0.1:0") if api else ()),
    )
    backup = servers.target(
        *("--iqn", "iqn.2026-11.com.example:backup"),
        *("--tape", f"tape={folder / 'cartridge'},capacity={capacity}"),
    )
    with ExitStack() as stack:
        stack.enter_context(storage)
        stack.enter_context(backup)
        mover = stack.enter_context(servers.datamover(storage, backup))
        yield San(folder, storage, backup, mover, options)


def tar(*words: object, cwd: Path | None = None) -> str:
    """Run GNU tar; return what it says."""
    done = subprocess.run(
        ["tar", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"tar {words}: {done.stderr}"
    assert "gnored" not in done.stderr, done.stderr
    return done.stdout


def names_in(archive: bytes) -> list[str]:
    """Return the names that Python's tarfile finds."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return found.getnames()
