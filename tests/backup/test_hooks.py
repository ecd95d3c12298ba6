"""Commands around a snapshot: in which order, what their failures do, what the label is worth."""

import time
from pathlib import Path

import pytest

from serverfree.backup.hooks import HookError, Hooks


@pytest.mark.parametrize(
    ("before", "said", "label"),
    [
        (None, None, "crash"),
        (None, "app", "crash"),  # nobody has seen to anything
        ("true", None, "fs"),
        ("true", "fs", "fs"),
        ("true", "app", "app"),
        ("true", "crash", "crash"),
    ],
)
def test_the_label_is_what_the_command_before_gives(before, said, label):
    with Hooks(before, consistency=said).around() as found:
        assert found == label


def test_they_run_in_order(tmp_path: Path):
    log = tmp_path / "log"
    with Hooks(f"echo before >> {log}", f"echo after >> {log}").around(), log.open("a") as file:
        file.write("snapshot\n")
    assert log.read_text() == "before\nsnapshot\nafter\n"


def test_a_command_before_that_fails_aborts_and_the_one_after_runs_all_the_same(tmp_path: Path):
    log = tmp_path / "log"
    hooks = Hooks("echo the file system is busy >&2; exit 3", f"echo after >> {log}")
    said = r"ended with 3: .*: the file system is busy$"
    with pytest.raises(HookError, match=said), hooks.around():
        pytest.fail("nothing is done without it")
    assert log.read_text() == "after\n"


def test_the_one_after_runs_when_the_snapshot_fails(tmp_path: Path):
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt), Hooks("true", f"echo after >> {log}").around():
        raise KeyboardInterrupt
    assert log.read_text() == "after\n"


def test_one_after_that_fails_is_told_and_does_not_hide_what_went_wrong_before():
    with (
        pytest.raises(HookError, match="the command after ended with 1"),
        Hooks(None, "false").around(),
    ):
        pass
    with pytest.raises(ZeroDivisionError) as caught, Hooks(None, "false").around():
        _ = 1 / 0
    assert caught.value.__notes__ == ["the command after ended with 1: false"]


@pytest.mark.parametrize("command", ["sleep 30", "sleep 30 & wait", "(sleep 30; sleep 30) | cat"])
def test_a_command_that_takes_too_long_is_ended_with_all_that_it_has_started(tmp_path, command):
    marker = tmp_path / "alive"
    began = time.monotonic()
    whole = f"(sleep 0.6; touch {marker}) & {command}"
    with pytest.raises(HookError, match=r"longer than 0\.2 s"), Hooks(whole, timeout=0.2).around():
        pytest.fail("it did not come to its end")
    assert time.monotonic() - began < 5
    time.sleep(0.6)
    assert not marker.exists()


def test_a_command_that_does_not_exist_is_one_line():
    with pytest.raises(HookError) as caught, Hooks("/nowhere/freeze").around():
        pass
    assert "\n" not in str(caught.value)
    assert "ended with 127" in str(caught.value)
