"""Whose backup is still running: processes by more than their number."""

import subprocess
import sys

from serverfree.backup.catalog import processes
from serverfree.backup.catalog.processes import is_alive, this_process


def test_this_process_is_alive():
    assert is_alive(this_process())


def test_one_that_has_ended_is_not():
    code = "from serverfree.backup.catalog.processes import this_process; print(this_process())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not is_alive(ended.stdout.strip())


def test_another_one_with_the_same_number_is_not():
    machine, pid, started = this_process().split()
    assert not is_alive(f"{machine} {pid} {int(started) + 1}")


def test_after_a_restart_of_the_machine_none_is():
    machine, pid, started = this_process().split()
    assert not is_alive(f"{machine.partition('/')[0]}/another-boot {pid} {started}")


def test_of_another_machine_nobody_here_knows():
    assert is_alive(f"elsewhere/boot {1} {2}")


def test_no_name_is_nobody():
    assert not is_alive("")


def test_a_program_with_blanks_and_parentheses_in_its_name(monkeypatch, tmp_path):
    stat = "7 (a) b (c) S " + " ".join(map(str, range(4, 30)))
    monkeypatch.setattr(processes.Path, "read_text", lambda self: stat)
    assert processes._name(7).endswith(" 7 22"), "field 22 is the time it began"
