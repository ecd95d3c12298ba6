"""Which process a running backup belongs to, and whether that is still there."""

import contextlib
import os
from pathlib import Path


def this_process() -> str:
    """Return a name for this process that no other gets, not even after the machine restarts."""
    return _name(os.getpid())


def is_alive(name: str) -> bool:
    """Whether a process is running; one of another machine counts as running."""
    boot, _, rest = name.partition(" ")
    here, _, _ = this_process().partition(" ")
    pid = rest.partition(" ")[0]
    if not pid.isdecimal() or boot.partition("/")[0] != here.partition("/")[0]:
        return bool(pid)
    return _exists(int(pid)) and _name(int(pid)) == name


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _name(pid: int) -> str:
    boot = started = ""
    with contextlib.suppress(OSError, IndexError):  # not Linux: the number has to do
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name of the program, in parentheses, may hold spaces; field 22 is the start time.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{os.uname().nodename}/{boot} {pid} {started}"
