"""The testbed itself: a verdict that could not be "failed" would show nothing."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import vm

from image import GUEST, HERE, _load_order, _write_cpio, packages  # isort: skip
from scenario import Scenario, ScenarioError, load, load_all  # isort: skip
from testbed import BEGIN, END, Runner, table, write_table  # isort: skip


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    vm.require()
    with Runner() as runner:
        yield runner


def script(text: str, timeout: int = 60) -> Scenario:
    return Scenario("trial", "a trial of the testbed", text, peers=("kernel",), timeout=timeout)


@pytest.mark.vm
@pytest.mark.timeout(1500)
class TestVerdicts:
    def test_a_proof_passes(self, runner: Runner) -> None:
        result = runner.run(script('same "two and two" 4 $((2 + 2))'))
        assert result.passed, result.output
        assert result.proved == ["two and two: 4"]
        assert result.peers["kernel"].startswith("6.")

    @pytest.mark.parametrize(
        "text",
        [
            'ok "before"; false; ok "after"',
            'ok "before"; same "two and two" 5 $((2 + 2))',
            'ok "before"; matches "a line" "^b$" "abc"',
            'ok "before"; fails "a command that succeeds" true',
            'ok "before"; fails "a program that is not there" no-such-program',
            'ok "before"; false | cat; ok "after"',
            'ok "before"; host no-such-word',
            'ok "before"; echo "$UNSET"',
            "true",
        ],
    )
    def test_a_fault_fails(self, runner: Runner, text: str) -> None:
        assert runner.run(script(text)).verdict == "failed"

    def test_a_hang_is_timed_out_and_the_guest_goes_on(self, runner: Runner) -> None:
        assert runner.run(script('ok "before"; sleep 1000', timeout=2)).verdict == "timed out"
        assert runner.run(script('ok "after"')).passed

    def test_a_guest_that_goes_down_fails_its_scenario_and_the_next_gets_a_new_one(
        self, runner: Runner
    ) -> None:
        result = runner.run(script('ok "before"; busybox poweroff -f; sleep 60', timeout=100))
        assert result.verdict == "failed"
        assert any("the guest has ended" in line for line in result.output)
        assert runner.run(script('ok "in a new guest"')).passed

    def test_the_guest_reaches_the_host_and_nothing_else(self, runner: Runner) -> None:
        result = runner.run(
            script('same "routes" "10.0.2.0/24" "$(ip route | cut -d" " -f1 | sort -u)"')
        )
        assert result.passed, result.output


@pytest.mark.vm
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("how", "when"),
    [
        (signal.SIGINT, "ok - target stopped"),  # guest, target and fio at work
        (signal.SIGTERM, "guest booted"),
        (signal.SIGKILL, "restart: "),  # before the boot: a guest must not need our help to end
    ],
)
def test_nothing_outlives_an_interrupted_run(how: signal.Signals, when: str) -> None:
    vm.require()
    run = subprocess.Popen(
        [sys.executable, "-u", str(HERE / "testbed.py"), "run", "restart"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    with run, run.stdout:
        try:
            assert any(when in line for line in run.stdout)
            deadline = time.monotonic() + 20
            while not (children := children_of(run.pid)):
                assert time.monotonic() < deadline, "no guest runs"
                time.sleep(0.05)
            run.send_signal(how)
            run.wait(60)
        finally:
            run.kill()
    assert run.returncode != 0
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a process outlived the run"
        time.sleep(0.1)


def children_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name may hold spaces; what follows the last parenthesis does not.
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append(int(status.parent.name))
    return found


class TestHeaders:
    def read(self, tmp_path: Path, header: str) -> Scenario:
        path = tmp_path / "trial.sh"
        path.write_text(f"# title: t\n# peers: kernel\n{header}\nok x\n# title: not the header\n")
        return load(path)

    def test_units_and_their_options(self, tmp_path: Path) -> None:
        scenario = self.read(
            tmp_path,
            "# target s: port-in-discovery; disk a size=1MiB thin; tape t capacity=2MiB\n"
            "# target u: api; disk b size=3MiB fill=random\n# mover: s guest\n# alone: yes",
        )
        first, second = scenario.targets
        assert (first.name, first.advertise, first.api) == ("s", True, False)
        assert [(unit.kind, unit.name) for unit in first.units] == [("disk", "a"), ("tape", "t")]
        assert first.units[0].options == {"size": "1MiB", "thin": ""}
        assert (second.advertise, second.api) == (False, True)
        assert second.units[0].options == {"size": "3MiB", "fill": "random"}
        assert scenario.mover == ("s", "guest")
        assert scenario.alone

    @pytest.mark.parametrize(
        "header",
        [
            "# target: disk a size=1MiB",
            "# target s: floppy a",
            "# target s: disk",
            "# movers: s",
            "# mover: nobody",
            "# title: twice",
        ],
    )
    def test_a_header_that_cannot_be_read_is_refused(self, tmp_path: Path, header: str) -> None:
        with pytest.raises(ScenarioError):
            self.read(tmp_path, header)

    def test_every_scenario_names_peers_that_the_image_holds(self) -> None:
        scenarios = load_all()
        assert scenarios
        for scenario in scenarios:
            assert set(scenario.peers) <= {*packages(), "kernel"}, scenario.name


class TestImage:
    def test_the_archive_is_one_that_cpio_reads(self, tmp_path: Path) -> None:
        path = tmp_path / "archive"
        with path.open("wb") as out:
            _write_cpio(out, [("a", 0o40755, b""), ("a/odd", 0o100644, b"12345")])
        assert path.stat().st_size % 512 == 0
        # The kernel's form: magic, 13 numbers of 8 hex digits, name and content padded to 4.
        data = path.read_bytes()
        second = data.index(b"070701", 1)
        assert data[:6] == b"070701"
        assert int(data[second + 6 + 6 * 8 :][:8], 16) == 5
        assert data[second + 110 :].startswith(b"a/odd\0" + b"12345" + bytes(3) + b"070701")
        assert b"TRAILER!!!\0" in data

    def test_modules_are_loaded_after_what_they_need(self, tmp_path: Path) -> None:
        (tmp_path / "modules.dep").write_text("k/a-x.ko: k/b.ko k/c.ko\nk/b.ko: k/c.ko\nk/c.ko:\n")
        (tmp_path / "modules.builtin").write_text("k/d.ko\n")
        order = _load_order(tmp_path, ["a_x", "b", "d"])
        assert [path.name for path in order] == ["c.ko", "b.ko", "a-x.ko"]

    def test_shell_scripts_are_read_without_complaint(self) -> None:
        for path in [*HERE.glob("scenarios/*.sh"), GUEST / "lib.sh", GUEST / "cleanup"]:
            subprocess.run(["bash", "-n", str(path)], check=True)


class TestTable:
    RECORD = {
        "date": "2026-01-02",
        "revision": "abc1234-dirty",
        "results": [
            {"peers": {"tar": "1.34"}, "title": "writes", "proved": ["a", "b"], "verdict": "failed"}
        ],
    }

    def test_a_row_says_what_the_run_said(self) -> None:
        lines = list(table(self.RECORD))
        assert "abc1234-dirty" in lines[0]
        assert lines[-1] == "| tar 1.34 | writes | 2 | failed |"

    def test_only_what_lies_between_the_markers_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "README.md"
        path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
        write_table(path, ["new"])
        write_table(path, ["newer"])
        assert path.read_text() == f"before\n{BEGIN}\nnewer\n{END}\nafter\n"

    def test_a_file_without_markers_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "README.md"
        path.write_text("text")
        with pytest.raises(ValueError):
            write_table(path, ["new"])
        assert path.read_text() == "text"
