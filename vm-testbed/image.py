"""The guest's image: a Debian root file system, its kernel, and the first ramdisk.

Built once by mmdebstrap and `mke2fs -d`, then kept under the user's cache folder by a hash of
all that decides its content: the package list and this file. The mirror, its proxy and its
certificates are those of the host's own apt configuration; no host name is written here.

Nothing that a scenario needs from this repository is in the image: the guest's programs travel
in the ramdisk of each boot (`boot_ramdisk`), so changing them never builds a new image.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
GUEST = HERE / "guest"
CODENAME = "bookworm"
ROOT_FILE_SYSTEM_SIZE = "1536M"  # sparse on the host; about 450 MB are used
ROOT_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")  # enough to mount the root

# Documentation is a third of the unpacking time and nobody reads it in there.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


class ImageError(Exception):
    """The image cannot be built; the text says what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class Image:
    """Paths of a finished image. Read-only by convention: a machine boots it with snapshot=on."""

    root: Path
    kernel: Path
    ramdisk: Path


def packages() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (HERE / "packages.txt").open())
    return [line for line in lines if line]


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "serverfree" / "vm-testbed"


def image_key() -> str:
    text = "\n".join(packages()).encode() + Path(__file__).read_bytes()
    return hashlib.sha256(text).hexdigest()[:16]


def is_cached() -> bool:
    return (cache_folder() / image_key()).is_dir()


def cached_image() -> Image:
    """The image of the current package list, built first if the cache lacks it.

    Raises ImageError. Safe against a second builder: one builds, the other waits for it.
    """
    folder = cache_folder() / image_key()
    with _exclusive(cache_folder()):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="building-") as work:
                _build(Path(work))
                # The folder appears under its final name only when all of it is there.
                (Path(work) / "image").rename(folder)
    return Image(folder / "root.img", folder / "vmlinuz", folder / "ramdisk.cpio")


def boot_ramdisk(image: Image, into: Path) -> Path:
    """The image's ramdisk followed by an archive of guest/: the kernel unpacks both, in order."""
    ramdisk = into / "ramdisk.cpio"
    with ramdisk.open("wb") as out:
        with image.ramdisk.open("rb") as base:
            shutil.copyfileobj(base, out)
        names = sorted(p for p in GUEST.iterdir() if p.is_file())
        entries = [(f"guest/{p.name}", 0o100755, p.read_bytes()) for p in names]
        init = ("init", 0o100755, (GUEST / "ramdisk-init").read_bytes())
        _write_cpio(out, [("guest", 0o40755, b""), *entries, init])
    return ramdisk


def _build(work: Path) -> None:
    if os.geteuid() != 0:
        raise ImageError("building the guest image needs root (chroot, device nodes): use sudo")
    for program, package in (("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")):
        if shutil.which(program) is None:
            raise ImageError(f"{program} is missing: apt-get install {package}")
    root, out = work / "root", work / "image"
    out.mkdir()
    (work / "apt.conf").write_text(_host_apt_options())
    (work / "sources.list").write_text("".join(f"{line}\n" for line in _host_sources()))
    _run(
        "mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--format=directory",
        f"--aptopt={work / 'apt.conf'}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        f"--include={','.join(packages())}",
        CODENAME, str(root), str(work / "sources.list"),
    )  # fmt: skip
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    release = kernel.name.removeprefix("vmlinuz-")
    shutil.copy(kernel, out / "vmlinuz")
    with (out / "ramdisk.cpio").open("wb") as ramdisk:
        _write_cpio(ramdisk, _ramdisk_entries(root, release))
    # Debian's own ramdisk and symbol table are not booted with; the machine-id would be shared.
    for left_over in [*(root / "boot").iterdir(), root / "etc/machine-id"]:
        left_over.unlink(missing_ok=True)
    (root / "etc/hostname").write_text("guest\n")
    (root / "etc/resolv.conf").write_text("")
    (out / "root.img").touch()  # or mke2fs reports that it made the file
    _run(
        "mke2fs", "-q", "-t", "ext4", "-L", "guest", "-E", "lazy_itable_init=1",
        "-O", "^metadata_csum", "-d", str(root), str(out / "root.img"), ROOT_FILE_SYSTEM_SIZE,
    )  # fmt: skip
    shutil.rmtree(root)


def _host_apt_options() -> str:
    """How this host reaches its mirror (proxy, certificates, time checks), as apt.conf text."""
    return subprocess.run(
        ["apt-config", "dump", "Acquire"], check=True, capture_output=True, text=True
    ).stdout


def _host_sources() -> list[str]:
    """The host's package sources for CODENAME, one-line style, without their key paths.

    mmdebstrap finds the keyring itself. Raises ImageError if this host knows no such source.
    """
    lines = _configured_sources()
    if not lines:
        # Origin and code name are known only once the package lists have been fetched.
        _run("apt-get", "update", "--quiet")
        lines = _configured_sources()
    if not lines:
        raise ImageError(
            f"this host's apt knows no Debian {CODENAME} mirror: add one to its sources"
        )
    return lines


def _configured_sources() -> list[str]:
    form = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)\t$(CODENAME)\t$(CREATED_BY)"
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", form], check=True, capture_output=True, text=True
    ).stdout
    wanted = {CODENAME, f"{CODENAME}-updates", f"{CODENAME}-security"}
    lines = set()
    for target in targets.splitlines():
        uri, release, component, origin, codename, kind = target.split("\t")
        if origin == "Debian" and codename in wanted and kind == "Packages":
            lines.add(f"deb {uri} {release} {component}")
    return sorted(lines) if any(f" {CODENAME} main" in line for line in lines) else []


def _ramdisk_entries(root: Path, release: str) -> Iterator[tuple[str, int, bytes]]:
    """A static busybox, the modules that mount the root, and the order to load them in."""
    for folder in ("bin", "dev", "modules", "proc", "root", "sys"):
        yield folder, 0o40755, b""
    yield "bin/busybox", 0o100755, (root / "bin/busybox").read_bytes()
    modules = root / "lib/modules" / release
    order = _load_order(modules, ROOT_MODULES)
    for path in order:
        yield f"modules/{path.name}", 0o100644, path.read_bytes()
    yield "modules/order", 0o100644, "".join(f"{path.name}\n" for path in order).encode()


def _load_order(modules: Path, wanted: Iterable[str]) -> list[Path]:
    """Module files, each after those it depends on (modules.dep lists the nearest first)."""
    by_name: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        by_name[Path(path).stem.replace("-", "_")] = [path, *needs.split()]
    for path in (modules / "modules.builtin").read_text().splitlines():
        by_name[Path(path).stem.replace("-", "_")] = []
    order: dict[str, None] = {}
    for name in wanted:
        for path in reversed(by_name[name]):
            order.setdefault(path)
    return [modules / path for path in order]


def _write_cpio(out: IO[bytes], entries: Iterable[tuple[str, int, bytes]]) -> None:
    """A "newc" archive, the one form that the kernel unpacks; entries are (path, mode, content)."""
    size = 0

    def put(data: bytes, align: int = 4) -> None:
        nonlocal size
        data += bytes(-(size + len(data)) % align)
        size += len(data)
        out.write(data)

    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        put(b"070701" + b"".join(b"%08X" % n for n in numbers) + name.encode() + b"\0")
        put(content)
    put(b"", align=512)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*argv: str) -> None:
    try:
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as failure:
        raise ImageError(f"{argv[0]} ended with status {failure.returncode}") from failure
