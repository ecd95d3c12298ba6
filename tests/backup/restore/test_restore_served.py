"""The verb `restore` against servers as processes: what comes back, and what is refused."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from serverfree.backup.device import FileDevice
from serverfree.backup.ntfs.volume import Volume
from serverfree.cli.main import main
from serverfree.initiator.disk import Disk
from serverfree.initiator.urls import open_session
from serverfree.scsi.cdb.reservation import PersistentReserveOut, ReserveOut
from serverfree.scsi.reservations import ReservationType, ReserveOutList
from support import ntfs_images, servers
from support.ntfs_images import MIB, mounted
from support.restoring import read_back

pytestmark = [
    pytest.mark.peer,
    pytest.mark.served,
    pytest.mark.skipif(os.geteuid() != 0, reason="FUSE mounts take root"),
]

LIBRARY = "iqn.2026-11.com.example:library"
LONG = pytest.mark.long
ONCE_FILES = ["files", pytest.param("image", marks=LONG)]
ONCE_IMAGE = ["image", pytest.param("files", marks=LONG)]
"""What is tried in both modes, and usually in one."""
ONE = "folder 1/inside/300000 bytes.bin"


class San:
    """A storage system, a library and a data mover; disks and tape are files in a folder."""

    def __init__(self, folder: Path, image, storage, library, mover) -> None:
        self.folder, self.image = folder, image
        self.disks = {name: unit.url for name, unit in storage.units.items()}
        self.tapes = {name: unit.url for name, unit in library.units.items()}
        self.mover = next(iter(mover.units.values())).url
        self.catalog = folder / "catalog.sqlite"
        self.ids: dict[str, str] = {}

    def backup(self, mode: str) -> None:
        words = ["--disk", self.disks["source"], "--no-snapshot", "--mode", mode]
        self.ids[mode] = self.run("backup", "--mover", self.mover, *words)["backup"]

    def restore(self, mode: str, *words: object, mover: bool = True) -> dict:
        to = ["--mover", self.mover] if mover else []
        return self.run("restore", "--backup", self.ids[mode], *to, *words)

    def run(self, verb: str, *words: object, tape: str = "tape") -> dict:
        """Run a verb; return its facts, or what it said and its exit code where it failed."""
        words = (*words, "--tape", self.tapes[tape], "--catalog", self.catalog, "--json")
        out, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            code = main([verb, *map(str, words)])
        if code:
            return {"code": code, "said": said.getvalue(), "out": out.getvalue()}
        return json.loads(out.getvalue())

    def hashes(self, disk: str) -> dict:
        return read_back(self.folder / f"{disk}.img", self.folder / "mount", self.image.manifest)

    def wanted(self) -> dict:
        streams = self.image.manifest.streams
        return {key: content.sha256 for key, content in streams.items()}


@pytest.fixture(scope="module")
def san(tmp_path_factory, ntfs_images):
    folder = tmp_path_factory.mktemp("san")
    image = ntfs_images.get("plain")
    image.copy(folder / "source.img")
    make_disks(folder)
    disks = [f"--disk={name}={folder / name}.img" for name in ("source", "volume", "odd")]
    disks.append(f"--disk=larger={folder / 'larger.img'},thin")
    tapes = [f"--tape={name}={folder / name},capacity=256MiB" for name in ("tape", "other")]
    with (
        servers.target(*disks) as storage,
        servers.target("--iqn", LIBRARY, *tapes) as library,
        servers.datamover(storage, library) as mover,
    ):
        found = San(folder, image, storage, library, mover)
        found.backup("files")
        found.backup("image")
        yield found


def make_disks(folder: Path) -> None:
    ntfs_images.make_volume(folder / "volume.img", 64 * MIB, 8192)
    ntfs_images.make_volume(folder / "odd.img", 32 * MIB, 512)
    (folder / "larger.img").write_bytes(b"\xe5" * 80 * MIB)


@pytest.mark.parametrize("mode", ["files", "image"])
def test_everything_into_a_volume_of_other_clusters(san, mode):
    ntfs_images.make_volume(san.folder / "volume.img", 64 * MIB, 8192)
    facts = san.restore(mode, "--disk", san.disks["volume"], *(["**"] if mode == "image" else []))
    assert facts["moved_bytes"] > 100 * facts["server_bytes"]
    assert facts["skipped"] == []
    assert san.hashes("volume") == san.wanted()


def test_an_image_onto_a_larger_disk_which_it_then_fills(san):
    facts = san.restore("image", "--disk", san.disks["larger"], "--grow")
    assert facts["free_space"].startswith("unmapped")
    assert facts["server_bytes"] == 0
    assert san.hashes("larger") == san.wanted()
    volume = Volume.open(FileDevice(str(san.folder / "larger.img")))
    assert volume.facts.size > 79 * MIB
    # What the image does not hold is not what it was.
    assert b"\xe5" * 4096 not in (san.folder / "larger.img").read_bytes()


@pytest.mark.parametrize("mode", ONCE_IMAGE)
def test_one_file_a_folder_and_a_pattern(san, mode):
    words = ["--disk", san.disks["odd"], "--into", f"from {mode}"]
    facts = san.restore(mode, *words, ONE, "folder 3", "**/4097*")
    assert facts["files"] == 1 + 9 + 5
    found = san.hashes("odd")
    with mounted(san.folder / "odd.img", san.folder / "mount", "ro") as top:
        for path in (ONE, "folder 3/inside/100001 bytes.bin", "folder 5/inside/4097 bytes.bin"):
            data = (top / f"from {mode}" / path).read_bytes()
            assert data == (san_source(san) / path).read_bytes()
    assert set(found.values()) == {"missing"}


def san_source(san) -> Path:
    """The source's files in a folder, made once."""
    place = san.folder / "as files"
    if not place.exists():
        san.restore("files", "--to-directory", place, mover=False)
    return place


def test_a_folder_gets_every_file(san):
    place = san.folder / "out"
    facts = san.restore("image", "--to-directory", place, mover=False)
    assert facts["moved_bytes"] == 0
    assert facts["server_reasons"]["to a folder"] == facts["content_bytes"]
    for (path, stream), content in san.image.manifest.streams.items():
        name = place / (f"{path}:{stream}" if stream else path)
        assert len(name.read_bytes()) == content.size


@pytest.mark.parametrize("mode", ["files", "image"])
def test_a_trial_compares_with_the_catalogs_digests(san, mode):
    facts = san.restore(mode, "--disk", san.disks["larger"], "--test", "--force")
    assert facts["compared_bytes"] >= facts["moved_bytes"]
    assert "SHA-256" in facts["compared"]


@pytest.mark.parametrize("mode", ONCE_FILES)
def test_without_a_copy_manager_only_if_that_was_allowed(san, mode):
    words = ["--disk", san.disks["larger"], "--test", "--force"]
    with pytest.raises(SystemExit, match="2"):
        san.restore(mode, *words, mover=False)
    facts = san.restore(mode, *words, "--allow-through-server", mover=False)
    assert facts["moved_bytes"] == 0
    assert facts["server_reasons"]["no copy manager"] > 2_000_000
    assert facts["compared_bytes"] > 2_000_000
    # A disk is no copy manager.
    facts = san.run("restore", "--backup", san.ids[mode], "--mover", san.disks["odd"], *words)
    assert facts["code"] == 1
    assert "nothing was written" in facts["said"]


def test_another_cartridge_is_refused(san):
    words = ["--mover", san.mover, "--disk", san.disks["volume"], "--backup", san.ids["image"]]
    facts = san.run("restore", *words, tape="other")
    assert facts["code"] == 1
    assert "cartridge" in facts["said"]
    assert "nothing was restored" in facts["said"]


def test_a_smaller_disk_is_refused_with_what_to_do(san):
    facts = san.restore("image", "--disk", san.disks["odd"])
    assert facts["code"] == 1
    assert "restore its files" in facts["said"]


def test_a_disk_that_another_has_reserved_is_refused(san):
    session, lun = open_session(san.disks["volume"], "iqn.2026-11.com.example:another")
    with session:
        disk = Disk(session.unit(lun))

        def out(action: ReserveOut, key: int, new: int, kind: int = 0) -> None:
            data = ReserveOutList(key, new).pack()
            cdb = PersistentReserveOut(
                service_action=action, type=kind, parameter_list_length=len(data)
            )
            disk.run(cdb, data_out=data)

        out(ReserveOut.REGISTER, 0, 0xABC)
        out(ReserveOut.RESERVE, 0xABC, 0, ReservationType.WRITE_EXCLUSIVE)
        before = (san.folder / "volume.img").read_bytes()
        for mode in ("image", "files"):
            facts = san.restore(mode, "--disk", san.disks["volume"])
            assert facts["code"] == 1
            assert "reserved by the holder of key 0000000000000abc" in facts["said"]
        assert (san.folder / "volume.img").read_bytes() == before
        out(ReserveOut.CLEAR, 0xABC, 0)


@pytest.mark.parametrize("mode", ONCE_FILES)
def test_a_bad_place_on_the_tape_costs_the_files_that_lie_there(san, mode):
    ntfs_images.make_volume(san.folder / "volume.img", 64 * MIB, 4096)
    with mounted(san.folder / "volume.img", san.folder / "mount") as top:
        (top / Path(ONE).parent).mkdir(parents=True)
        (top / ONE).write_bytes(b"what was there")
    good = san.folder / f"good tape of {mode}"
    shutil.copytree(san.folder / "tape", good)
    content = (san_source(san) / ONE).read_bytes()
    spoil(san.folder / "tape", content[150_000:150_032], last=mode == "image")
    try:
        words = [] if mode == "files" else ["**"]
        facts = san.restore(mode, "--disk", san.disks["volume"], "--overwrite", *words)
        assert facts["code"] == 1
        facts = json.loads(facts["out"])
        lost = [each.partition(":")[0] for each in facts["skipped"]]
        assert ONE in lost
        assert "tape blocks" in facts["skipped"][0]
        found, wanted = san.hashes("volume"), san.wanted()
        for key in wanted:
            if key[0] in lost:
                assert found[key] != wanted[key]
            else:
                assert found[key] == wanted[key]
        assert len(lost) < len(wanted) // 2
        with mounted(san.folder / "volume.img", san.folder / "mount", "ro") as top:
            assert (top / ONE).read_bytes() == b"what was there"
        if mode == "image":
            facts = san.restore(mode, "--disk", san.disks["larger"], "--force")
            assert facts["code"] == 1
            assert ONE in facts["out"]
    finally:
        for file in good.rglob("*"):
            if file.is_file():
                (san.folder / "tape" / file.relative_to(good)).write_bytes(file.read_bytes())


def spoil(cartridge: Path, wanted: bytes, *, last: bool) -> None:
    """Change a byte of the cartridge's files where these bytes lie: in the first archive that
    holds them, or in the last.
    """
    for file in sorted(cartridge.rglob("*"), reverse=last):
        if not file.is_file():
            continue
        data = file.read_bytes()
        at = data.rfind(wanted) if last else data.find(wanted)
        if at >= 0:
            with file.open("r+b") as opened:
                opened.seek(at)
                opened.write(bytes([wanted[0] ^ 1]))
            return
    raise AssertionError("not on the tape")
