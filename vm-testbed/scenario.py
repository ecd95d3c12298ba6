"""What a scenario file says of itself: the comment lines at its top, each `# key: value`.

    # title: what it shows, in one line
    # peers: Debian packages whose programs judge us here (and `kernel`)
    # target NAME: disk|tape UNIT [key=value | flag]...; ...   a `serverfree target` on the host
    # mover: NAME...       a `serverfree datamover` reaching them (`guest`: the guest's LIO)
    # timeout: seconds in the guest (120 unless told)
    # alone: yes           a guest of its own, before and after

Unit options are those of `serverfree target` (design.md section 5); of ours are `fill=random` (a
disk's file holds random bytes before the target starts) and `like=UNIT` (the same bytes as it).
A target's own line may begin with `port-in-discovery;` (it announces the address that the guest
reaches, as `--advertise` does it) and with `api;` (it has a management API, for snapshots).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "scenarios"
_TARGET_FLAGS = ("port-in-discovery", "api")
_LINE = re.compile(r"# ([a-z]+)(?: ([a-z0-9]+))?: (.*)")


class ScenarioError(Exception):
    """A scenario's header cannot be read; the text names file and line."""


@dataclass(frozen=True, slots=True)
class UnitWish:
    """One unit that a scenario wants served: a disk or a tape."""

    kind: str
    name: str
    options: dict[str, str]  # a flag maps to ""


@dataclass(frozen=True, slots=True)
class TargetWish:
    name: str
    units: tuple[UnitWish, ...]
    advertise: bool
    api: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    script: str
    peers: tuple[str, ...]
    targets: tuple[TargetWish, ...] = ()
    mover: tuple[str, ...] = ()
    timeout: int = 120
    alone: bool = False
    long: bool = False


@dataclass(slots=True)
class _Header:
    single: dict[str, str] = field(default_factory=dict)
    targets: list[TargetWish] = field(default_factory=list)


def load(path: Path) -> Scenario:
    """Read one scenario. Raises ScenarioError."""
    script = path.read_text()
    header = _Header()
    for number, line in enumerate(script.splitlines(), 1):
        if not line.startswith("#"):
            break
        if match := _LINE.fullmatch(line):
            key, name, value = match.groups()
            _take(header, key, name, value, f"{path.name}:{number}")
    known = {"title", "peers", "mover", "timeout", "alone", "long"}
    single = header.single
    if unknown := single.keys() - known:
        raise ScenarioError(f"{path.name}: unknown key {', '.join(sorted(unknown))}")
    if not single.keys() >= {"title", "peers"}:
        raise ScenarioError(f"{path.name}: needs a title and its peers")
    mover = tuple(single.get("mover", "").split())
    if unreachable := set(mover) - {target.name for target in header.targets} - {"guest"}:
        raise ScenarioError(f"{path.name}: mover names no target: {', '.join(unreachable)}")
    return Scenario(
        name=path.stem,
        title=single["title"],
        script=script,
        peers=tuple(single["peers"].split()),
        targets=tuple(header.targets),
        mover=mover,
        timeout=int(single.get("timeout", "120")),
        alone=single.get("alone") == "yes",
        long=single.get("long") == "yes",
    )


def load_all() -> list[Scenario]:
    """All scenarios, those that share a guest first."""
    found = [load(path) for path in sorted(FOLDER.glob("*.sh"))]
    return sorted(found, key=lambda scenario: scenario.alone)


def _take(header: _Header, key: str, name: str | None, value: str, where: str) -> None:
    if key != "target":
        if name is not None or key in header.single:
            raise ScenarioError(f"{where}: cannot read this line")
        header.single[key] = value.strip()
        return
    if name is None:
        raise ScenarioError(f"{where}: a target needs a name")
    words = [part.split() for part in value.split(";") if part.strip()]
    flags = set()
    while words and words[0][0] in _TARGET_FLAGS and len(words[0]) == 1:
        flags.add(words.pop(0)[0])
    units = tuple(_unit(entry, where) for entry in words)
    header.targets.append(TargetWish(name, units, "port-in-discovery" in flags, "api" in flags))


def _unit(words: list[str], where: str) -> UnitWish:
    if len(words) < 2 or words[0] not in ("disk", "tape"):
        raise ScenarioError(f"{where}: a unit is 'disk NAME ...' or 'tape NAME ...'")
    options = dict(word.partition("=")[::2] for word in words[2:])
    return UnitWish(words[0], words[1], options)
