"""Folders of jobs: gone when the job is, also if it was killed, and only then."""

import os
import signal
import subprocess
import sys

from serverfree.backup.scratch import scratch_folder

HOLD = """
import sys
from pathlib import Path
from serverfree.backup.scratch import scratch_folder
with scratch_folder("job-", Path(sys.argv[1])) as folder:
    (folder / "sub").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


def hold(parent):
    """A process that has a folder, and its name."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    return process, process.stdout.readline().decode().strip()


def test_what_a_killed_process_has_left_the_next_removes_and_nothing_else(tmp_path):
    (tmp_path / "job-of somebody").mkdir()
    (tmp_path / "job-link").symlink_to(tmp_path / "job-of somebody")
    alive, its = hold(tmp_path)
    dead, left = hold(tmp_path)
    os.kill(dead.pid, signal.SIGKILL)
    dead.communicate()
    removed = []
    with scratch_folder("job-", tmp_path, removed=removed.append) as mine:
        assert [str(each) for each in removed] == [left]
        expected = {its, str(mine), str(tmp_path / "job-of somebody"), str(tmp_path / "job-link")}
        assert {str(each) for each in tmp_path.iterdir()} == expected
    alive.communicate(b"")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_released_stays_and_stops_nobody(tmp_path):
    dead, left = hold(tmp_path)
    os.kill(dead.pid, signal.SIGKILL)
    dead.communicate()

    def busy(folder):
        raise OSError("busy")

    with scratch_folder("job-", tmp_path, busy) as mine:
        assert sorted(map(str, tmp_path.iterdir())) == sorted([left, str(mine)])
    with scratch_folder("job-", tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]
