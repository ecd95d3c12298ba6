"""Programs that no one here wrote: where they come from, and what happens if they are missing.

As a script (`make peers`) it installs the missing ones if it can and says what it could not.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {
    "iscsi-ls": "libiscsi-bin",
    "iscsi-perf": "libiscsi-bin",
    "iscsi-test-cu": "libiscsi-bin",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-img's iscsi driver": "qemu-block-extra",
    "tgtd": "tgt",
    "tgtadm": "tgt",
    "iperf3": "iperf3",
    "istgt": "istgt",
    "iscsi-inq": "libiscsi-bin",
    "tshark": "tshark",
    "sg_logs": "sg3-utils",
    "sg_read_attr": "sg3-utils",
    "sg_vpd": "sg3-utils",
    "sg_decode_sense": "sg3-utils",
    "ddptctl": "ddpt",
    "ntfsls": "ntfs-3g",
    "ntfscat": "ntfs-3g",
    "ntfs-3g": "ntfs-3g",
    "mkntfs": "ntfs-3g",
    "ntfsfallocate": "ntfs-3g",
    "fusermount": "fuse3",
    "tar": "tar",
    "bsdtar": "libarchive-tools",
    "ntfsfix": "ntfs-3g",
    "ntfsresize": "ntfs-3g",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "losetup": "mount",
    "mount": "mount",
    "filefrag": "e2fsprogs",
}


def in_ci() -> bool:
    """Return whether this run must not skip what it could not find."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def find(program: str) -> Path | None:
    """Return where a peer lies. Administrators' folders count: tgtd is not on a user's PATH."""
    if program == "qemu-img's iscsi driver":
        return next(iter(Path("/usr").glob("lib*/**/qemu/block-iscsi.so")), None)
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def missing() -> list[str]:
    """Return the peers that are not on this machine."""
    return [program for program in PACKAGES if find(program) is None]


def require(*programs: str) -> None:
    """Skip the calling test, by name and package, where a peer is missing; in CI fail it."""
    absent = [f"{name} (Debian: {PACKAGES[name]})" for name in programs if find(name) is None]
    if absent:
        reason = f"missing on this machine: {', '.join(absent)}"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)


def install() -> None:
    """Install what is missing from Debian, as root; else name what will be skipped and why."""
    absent = missing()
    if not absent:
        return
    packages = sorted({PACKAGES[name] for name in absent})
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        print(f"peers: installing {', '.join(packages)}", flush=True)
        for step in (["apt-get", "update"], command):
            subprocess.run(step, env=environment, check=False, stdout=subprocess.DEVNULL)
        absent = missing()
    if absent:
        print(f"peers: {', '.join(absent)} not found; the tests that need them will be skipped")
        print(f"peers: as root, `apt-get install {' '.join(packages)}` brings them")
        if in_ci():
            sys.exit("peers: in CI none may be missing")


if __name__ == "__main__":
    install()
