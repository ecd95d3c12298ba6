"""The guest of vm-testbed as tests see it: its runner, or a skip that names what is missing."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from support.peers import in_ci

FOLDER = Path(__file__).resolve().parents[2] / "vm-testbed"
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
}

# The folder's name has a hyphen so that nothing can import it as a package; its modules are reached
# by path, as `python vm-testbed/testbed.py` reaches them.
sys.path.insert(0, str(FOLDER))


def require() -> None:
    """Skip the calling test, naming the Debian packages, where a guest cannot be booted."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)]
    if missing:
        reason = f"missing on this machine: {', '.join(missing)} (`make vm-packages` as root)"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)
