"""Each verb as a process, each process killed with -9 at any moment: told, and nothing is lost.

The source disk is slow, so that there is a middle to be killed in. The moments come from a seed.
"""

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from serverfree.backup.catalog.facts import Mode, State
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.site import Site
from serverfree.backup.verify import verify
from serverfree.cli.processes import SERVERFREE
from support import backups, ntfs_images
from support.ntfs_images import MIB, mounted
from support.restoring import read_back

pytestmark = [
    pytest.mark.peer,
    pytest.mark.served,
    pytest.mark.skipif(os.geteuid() != 0, reason="FUSE mounts take root"),
]

VERBS = ("backup image", "backup files", "restore image", "restore files", "verify")
VICTIMS = ("mover", "storage", "backup", "server")
POINTS = 4
CI = {("restore image", "mover"), ("restore files", "server"), ("verify", "backup")}
KEPT = "kept/what was there.txt"


@pytest.fixture(scope="module")
def image(ntfs_images):
    return ntfs_images.get("plain")


@pytest.fixture(scope="module")
def san(image, tmp_path_factory):
    """One for all: whatever a kill breaks has to serve the next one."""
    folder = tmp_path_factory.mktemp("killed")
    ntfs_images.make_volume(folder / "volume.img", 48 * MIB)
    (folder / "wiped.img").write_bytes(b"\xe5" * (64 * MIB))
    disks = tuple(f"{name}={folder / name}.img,delay=4" for name in ("volume", "wiped"))
    disk = image.copy(folder / "disk.img")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVERFREE_TOKEN", backups.TOKEN)
        patch.setenv("TMPDIR", str(folder))
        with backups.san(folder, disk, disks=disks) as served:
            served.first = both(served)
            served.lasted = {}
            yield served


def both(san, *, overwrite_tape: bool = False):
    """A backup of each mode."""
    image = san.back_up(Mode.IMAGE, command_size=MIB, overwrite_tape=overwrite_tape)
    return {Mode.IMAGE: image, Mode.FILES: san.back_up(Mode.FILES, command_size=MIB)}


def words(san, verb: str) -> list[str]:
    """The command line of a verb."""
    name, _, mode = verb.partition(" ")
    found = [*SERVERFREE, name, "--mover", str(san.manager), "--tape", str(san.tape)]
    found += ["--catalog", str(san.catalog)]
    if name == "backup":
        return [*found, "--disk", str(san.disk), "--mode", mode, "--array", san.array,
                "--quiet", "0"]  # fmt: skip
    found += ["--backup", san.first[Mode(mode or "image")].backup]
    if name == "restore":
        onto = "wiped" if mode == "image" else "volume"
        found += ["--disk", san.storage[onto].url, "--force"]
        if mode == "files":
            found.append("--overwrite")
    return found


def run(
    san, verb: str, victim: str | None = None, after: float = 0.0, *, afresh: bool = True
) -> tuple[int, str]:
    """Run a verb, with somebody killed on the way; return its exit code and what it said. Where
    it restores to is made anew, or else as it is.
    """
    if afresh and verb == "restore files":
        ntfs_images.make_volume(san.folder / "volume.img", 48 * MIB)
        with mounted(san.folder / "volume.img", san.folder / "mount") as top:
            (top / "kept").mkdir()
            (top / KEPT).write_bytes(b"what was there")
    with (san.folder / "said").open("w+") as said:
        process = subprocess.Popen(words(san, verb), stdout=said, stderr=said)
        begun = time.monotonic()
        try:
            if victim is not None:
                time.sleep(after)
                process.kill() if victim == "server" else getattr(san, victim).kill()
            if victim not in (None, "server"):
                timer = threading.Timer(0.3, getattr(san, victim).start)
                timer.start()
                timer.join()
            code = process.wait(150)
        finally:
            process.kill()
            process.wait()
        san.lasted.setdefault(verb, time.monotonic() - begun)
        said.seek(0)
        return code, said.read()


def moments():
    for verb in VERBS:
        for victim in VICTIMS:
            for point in range(POINTS):
                short = (verb, victim) in CI and point == 1
                yield pytest.param(verb, victim, point, marks=[] if short else [pytest.mark.long])


@pytest.mark.parametrize(("verb", "victim", "point"), list(moments()))
def test_it_goes_on_or_says_why_and_nothing_is_lost(san, image, verb, victim, point):
    if verb not in san.lasted:
        assert run(san, verb)[0] == 0
    chance = random.Random(f"{verb} {victim} {point}")
    after = chance.uniform(0.25, 1) * san.lasted[verb]
    known, files = entries(san), len(san.tape_files())
    code, said = run(san, verb, victim, after)
    assert "Traceback" not in said
    if victim == "server":
        assert code in (0, -signal.SIGKILL)
    else:
        assert code in (0, 1), said
        assert said.strip()
    new = [state for uuid, state in entries(san).items() if uuid not in known]
    assert State.RUNNING not in new  # no backup looks as if it ran
    if verb.startswith("backup") and code >= 0:
        if new:
            assert new == [State.FAILED if code else State.DONE]
        else:  # it came to its end before the catalog had it: then no tape moved
            assert code == 1
            assert len(san.tape_files()) == files
    for report in san.first.values():
        check_good(san, report)
    if verb.startswith("backup"):
        again = san.back_up(Mode(verb.split()[1]), array=san.array)
        check_good(san, again)
        assert [unit.name for unit in snapshots(san)] == []
        if len(san.tape_files()) > 12:  # the cartridge is not endless
            san.first = both(san, overwrite_tape=True)
    elif verb.startswith("restore"):
        check_restored(san, image, verb)
    else:
        assert run(san, verb)[0] == 0


def snapshots(san):
    from serverfree.backup.array import Array

    with Array(san.array) as array:
        return array.snapshots()


def entries(san) -> dict[str, State]:
    """The backups of the catalog, and what it says of each."""
    with Catalog.open(san.catalog) as catalog:
        return {backup.facts.uuid: backup.state for backup in catalog.backups()}


def check_good(san, report) -> None:
    """The backup is on tape as the catalog has it, and GNU tar reads it."""
    with Catalog.open(san.catalog) as catalog, Site(san.manager, san.tape) as site:
        assert verify(catalog, site, catalog.backup(report.backup)).good
    archive = san.tape_file(report.file, san.folder / "good.tar")
    assert report.members + 1 == len(backups.tar("-tf", archive).splitlines())


def check_restored(san, image, verb: str) -> None:
    """What was on the volume is still there, and the next restore brings all."""
    onto = san.folder / ("wiped.img" if verb == "restore image" else "volume.img")
    if verb == "restore files":
        with mounted(onto, san.folder / "mount", "ro") as top:
            assert (top / KEPT).read_bytes() == b"what was there"
    left = list(san.folder.glob("serverfree-restore-*"))
    code, said = run(san, verb, afresh=False)
    assert code == 0, said
    assert ("which a restore that was killed had left" in said) is bool(left)
    wanted = {key: content.sha256 for key, content in image.manifest.streams.items()}
    assert read_back(onto, san.folder / "mount", image.manifest) == wanted
    assert list(san.folder.glob("serverfree-restore-*")) == []
    assert str(san.folder / "serverfree-restore-") not in Path("/proc/mounts").read_text()
