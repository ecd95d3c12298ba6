"""The testbed's command line and its runner: scenarios in, verdicts and a table of peers out.

testbed.py run [NAME...]      all scenarios, or those named; exit status 0 if all passed
testbed.py list               what there is
testbed.py image              build the guest image if the cache lacks it
testbed.py table FILE...      write the table of the last full run between the markers of FILEs
testbed.py clean              remove cached images and results
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from image import HERE, ImageError, cache_folder, cached_image, is_cached
from machine import Machine, MachineError
from scenario import Scenario, ScenarioError, load_all
from storage import Storage

from serverfree.cli.processes import ServerError

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
PROVED = "ok - "


@dataclass(slots=True)
class Result:
    """The verdict on one scenario. `verdict` is passed, failed or timed out."""

    name: str
    title: str
    verdict: str
    seconds: float
    proved: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    peers: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"


class Runner:
    """Runs scenarios, several in one guest where they allow it, as a context manager.

    A guest is given up when a scenario wants one alone, or left it other than it was.
    """

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self._say = say
        self._stack = ExitStack()
        self._machine: Machine | None = None

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._give_up()

    def run(self, scenario: Scenario) -> Result:
        if scenario.alone:
            self._give_up()
        machine = self._booted()
        versions = {name: machine.packages[name] for name in scenario.peers}
        result = Result(scenario.name, scenario.title, "failed", 0.0, peers=versions)
        begun = time.monotonic()

        def take(line: str) -> None:
            result.output.append(line)
            if line.startswith(PROVED):
                result.proved.append(line.removeprefix(PROVED))
            self._say(f"  {scenario.name} {time.monotonic() - begun:5.1f}  {line}")

        keep = False
        try:
            with Storage(scenario, machine.lio_port) as storage:
                ended = machine.run(
                    scenario.name,
                    scenario.script,
                    storage.env,
                    scenario.timeout,
                    take,
                    storage.respond,
                )
                for line in storage.logs():
                    take(f"[{line}]")
            keep = ended.clean and not scenario.alone
            if ended.timed_out:
                result.verdict = "timed out"
            elif ended.status == 0 and result.proved:
                result.verdict = "passed"
            elif ended.status == 0:
                take("the scenario ended well but proved nothing")
        except (MachineError, ServerError) as error:
            for line in str(error).splitlines():
                take(line)
        finally:
            if not keep:
                self._give_up()
        result.seconds = round(time.monotonic() - begun, 1)
        return result

    def _booted(self) -> Machine:
        if self._machine is None:
            if not is_cached():
                self._say("building the guest image (a few minutes, once)")
            begun = time.monotonic()
            self._machine = self._stack.enter_context(Machine(cached_image()))
            self._say(f"guest booted in {time.monotonic() - begun:.0f} s")
        return self._machine

    def _give_up(self) -> None:
        self._machine = None
        self._stack.close()


def results_path() -> Path:
    return cache_folder() / "results.json"


def revision() -> str:
    """Which sources were judged; `-dirty` if files were changed since, `unknown` outside git."""
    describe = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    done = subprocess.run(describe, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def save(results: Sequence[Result]) -> None:
    """Keep a full run's verdicts where `table` finds them."""
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "revision": revision(),
        "results": [asdict(result) for result in results],
    }
    results_path().parent.mkdir(parents=True, exist_ok=True)
    results_path().write_text(json.dumps(record, indent=1))


def table(record: dict[str, Any]) -> Iterator[str]:
    """The lines of the peers' table, from the record of a run and from nothing else."""
    yield f"Run of {record['date']} at revision {record['revision']}."
    yield ""
    yield "| Peer (version) | What it did | Checks | Result |"
    yield "|---|---|---|---|"
    for result in record["results"]:
        peers = ", ".join(f"{name} {version}" for name, version in result["peers"].items())
        yield f"| {peers} | {result['title']} | {len(result['proved'])} | {result['verdict']} |"


def write_table(path: Path, lines: Sequence[str]) -> None:
    """Replace what lies between the two markers of a file. Raises ValueError if it has none."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: no {BEGIN} ... {END}")
    path.write_text("\n".join([before + BEGIN, *lines, END + after]))


def run(names: Sequence[str]) -> int:
    scenarios = load_all()
    if unknown := set(names) - {scenario.name for scenario in scenarios}:
        print(f"no scenario named {', '.join(sorted(unknown))}; see `list`", file=sys.stderr)
        return 2
    chosen = [
        scenario
        for scenario in scenarios
        if (scenario.name in names if names else not scenario.long)
    ]
    results = []
    with Runner() as runner:
        for scenario in chosen:
            print(f"{scenario.name}: {scenario.title}", flush=True)
            result = runner.run(scenario)
            results.append(result)
            print(f"{scenario.name}: {result.verdict}, {result.seconds} s", flush=True)
    if not names:
        save(results)
    failed = [result.name for result in results if not result.passed]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    for name in failed:
        print(f"  failed: {name}")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="testbed.py", description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run").add_argument("names", nargs="*", metavar="NAME")
    verbs.add_parser("list")
    verbs.add_parser("image")
    verbs.add_parser("table").add_argument("files", nargs="+", type=Path, metavar="FILE")
    verbs.add_parser("clean")
    arguments = parser.parse_args(argv)
    # A polite end of the whole process is an exception too, so that guest and servers end first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        match arguments.verb:
            case "run":
                return run(arguments.names)
            case "list":
                for scenario in load_all():
                    print(f"{scenario.name:24} {scenario.title}")
            case "image":
                print(cached_image().root)
            case "table":
                record = json.loads(results_path().read_text())
                for path in arguments.files:
                    write_table(path, list(table(record)))
            case "clean":
                shutil.rmtree(cache_folder(), ignore_errors=True)
    except (ImageError, ScenarioError, ValueError) as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("testbed: interrupted; guest and servers have ended", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
