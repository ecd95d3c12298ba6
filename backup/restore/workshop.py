"""The programs of NTFS-3G at work on an image file: mounted for a while, or one call at a time."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serverfree.backup.restore.wanted import RestoreError
from serverfree.backup.scratch import scratch_folder

_PACKAGES = {"fusermount": "fuse3"}
_PACKAGE = "ntfs-3g"
_SEARCHED = ":/usr/local/sbin:/usr/sbin:/sbin"  # administrators' folders count
_MOUNT_TIMEOUT = 30.0
_UNMOUNT_TIMEOUT = 120.0
_CALL_TIMEOUT = 120.0
_DATA = "0x80"
_MOUNT = "mount"
_GROWTH = 2


@contextmanager
def restore_folder(warnings: list[str] | None = None) -> Iterator[Path]:
    """Yield a folder for a shadow; one that a killed restore has left goes, with its mount."""

    def removed(folder: Path) -> None:
        if warnings is not None:
            warnings.append(f"removed {folder}, which a restore that was killed had left")

    with scratch_folder("serverfree-restore-", release=_release, removed=removed) as folder:
        yield folder


def _release(folder: Path) -> None:
    """Unmount what a driver has left mounted, which then ends."""
    place = folder / _MOUNT
    if _in_mounts(place):
        subprocess.run([find_program("fusermount"), "-u", "-z", place], check=False)
        if _in_mounts(place):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), place)


def _in_mounts(place: Path) -> bool:
    """Whether something is mounted there, even if its driver has gone."""
    name = os.fsencode(place).replace(b" ", b"\\040")
    return any(line.split()[1] == name for line in Path("/proc/self/mounts").open("rb"))


class NoSpace(RestoreError):
    """The volume has no room for what is to be restored."""


def find_program(name: str) -> str:
    """Return where a program lies. Raises RestoreError naming its package."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + _SEARCHED)
    if found is None:
        raise RestoreError(
            f"{name} is missing on this machine: install the package "
            f"{_PACKAGES.get(name, _PACKAGE)}, or restore to a folder with --to-directory"
        )
    return found


class Workshop:
    """What can be done to the NTFS volume in an image file that nothing else uses.

    Paths go from the root of the volume, `/` between, none in front.
    """

    def __init__(self, image: Path, cluster: int) -> None:
        self.image = image
        self._cluster = cluster
        self._mount = find_program("ntfs-3g")
        self._unmount = find_program("fusermount")
        self._allocate = find_program("ntfsfallocate")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise RestoreError("no FUSE here (/dev/fuse): restore to a folder with --to-directory")

    # ------------------------------------------------------------------ mounted

    @contextmanager
    def mounted(self, *options: str) -> Iterator["Mounted"]:
        """Mount the image; everything is in it again when this ends."""
        place = self.image.parent / _MOUNT
        place.mkdir(exist_ok=True)
        wishes = ",".join(("no_detach", "streams_interface=windows", "nocompression", *options))
        with (self.image.parent / "ntfs-3g.log").open("w+b") as log:
            process = subprocess.Popen(
                [self._mount, "-o", wishes, self.image, place],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                self._wait_for_mount(process, place, log.name)
                yield Mounted(place)
            finally:
                self._end(process, place)

    def _wait_for_mount(self, process: "subprocess.Popen[bytes]", place: Path, log: str) -> None:
        deadline = time.monotonic() + _MOUNT_TIMEOUT
        while not place.is_mount():
            if process.poll() is not None or time.monotonic() > deadline:
                said = Path(log).read_text(errors="replace").split("\n\n")[0]
                raise RestoreError(f"ntfs-3g does not mount the shadow: {' '.join(said.split())}")
            time.sleep(0.002)

    def _end(self, process: "subprocess.Popen[bytes]", place: Path) -> None:
        deadline = time.monotonic() + _UNMOUNT_TIMEOUT
        while process.poll() is None:
            done = subprocess.run(
                [self._unmount, "-u", place], capture_output=True, check=False
            )  # busy for a moment where something looks into every new mount
            if done.returncode == 0:
                break
            if time.monotonic() > deadline:
                process.kill()
                raise RestoreError(f"{place} cannot be unmounted: {done.stderr.decode().strip()}")
            time.sleep(0.02)
        if process.wait(_UNMOUNT_TIMEOUT):
            raise RestoreError(f"ntfs-3g ended with {process.returncode} at work on the shadow")

    # ------------------------------------------------------------------ one call at a time

    def allocate(self, path: str, stream: str, offset: int, length: int) -> None:
        """Give a range of a stream clusters, without content; the stream grows to its end.

        The stream is empty, or shorter than `offset`: what lies between becomes a hole. Where the
        free space is in small pieces, the range is asked for in small pieces. Raises NoSpace.
        """
        part = length
        end = offset + length
        while offset < end:
            part = min(part, end - offset)
            if self._try_allocate(path, stream, offset, part):
                offset += part
                part *= _GROWTH
            elif part <= self._cluster:
                raise NoSpace(f"no space for {path}: {end - offset} bytes are missing")
            else:
                part = max(self._cluster, part // _GROWTH // self._cluster * self._cluster)

    def _try_allocate(self, path: str, stream: str, offset: int, length: int) -> bool:
        # The name of a stream is taken only with a word behind it.
        which: list[str | bytes] = [_DATA, encode(stream), "x"] if stream else []
        command: list[str | bytes | Path] = [
            self._allocate, "-f", "-o", str(offset), "-l", str(length),
            self.image, encode(path), *which,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                check=False,
                timeout=_CALL_TIMEOUT,
                env={"LC_ALL": "C.UTF-8"},
            )
        except subprocess.TimeoutExpired as error:
            raise RestoreError(f"ntfsfallocate does not end for {path}") from error
        said = done.stderr.decode(errors="replace")
        if done.returncode == 0 and "Failed" not in said:  # it ends with 0 without space as well
            return True
        if os.strerror(errno.ENOSPC) in said:
            return False
        words = " ".join(said.replace(_banner(said), "").split())
        raise RestoreError(f"ntfsfallocate ended with {done.returncode} for {path}: {words}")


def _banner(said: str) -> str:
    first = said.partition("\n")[0]
    return first if first.startswith("ntfsfallocate v") else ""


def encode(name: str) -> bytes:
    """Return a name as the programs know it: UTF-8, with lone surrogates as they are."""
    return name.encode("utf-8", "surrogatepass")


class Mounted:
    """A mounted volume: where its files are for this machine."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)

    def at(self, path: str, stream: str = "") -> Path:
        """Return where a file lies, or one of its streams."""
        place = self._root + b"/" + encode(path) if path else self._root
        return Path(os.fsdecode(place + b":" + encode(stream) if stream else place))

    def truncate(self, path: str, stream: str, size: int) -> None:
        """Give a stream another length; what is added is a hole."""
        os.truncate(self.at(path, stream), size)
