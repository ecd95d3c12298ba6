"""A process that is killed, and a machine that loses power, at any step of what snapshots do.

Afterwards the disk holds what was written, and each snapshot shows its moment or is invalid.
"""

import contextlib
import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serverfree.target.backstore.base import ReadError
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.snapshot_history import SnapshotHistory
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from serverfree.target.backstore.snapshot_state import SnapshotState
from support.power import FailingDisk, PowerCut

CHUNK = 4096
SIZE = 24 * CHUNK
STEPS = 24
MORE_SEEDS = [pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6)]
KINDS = (*("write",) * 4, "zero", "discard", *("take",) * 3, "delete")


def open_origin(folder: Path, boot: str = "this start", limit: int | None = None) -> SnapshotOrigin:
    """A disk with its snapshots in the same folder, which takes no notice of the file's time."""
    path = folder / "disk"
    store = open_file_store(path, None if path.exists() else SIZE, thin=True)
    return SnapshotOrigin(store, folder, chunk=CHUNK, limit=limit, boot=lambda: boot)


@pytest.fixture(autouse=True)
def syncing_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page cache holds outlives a killed process; where power is lost, a sync counts."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)


def image_of(folder: Path, copy: Path) -> Path:
    """What a process that is killed now leaves."""
    copy.mkdir()
    for path in folder.iterdir():
        shutil.copy2(path, copy)
    return copy


@dataclass
class Play:
    """A course of steps that is the same whenever it is played, and what they should lead to."""

    seed: int
    limit: int | None = None
    content: bytearray = field(default_factory=lambda: bytearray(SIZE))
    snapshots: dict[str, bytes] = field(default_factory=dict)
    before: dict[int, bytes] = field(default_factory=dict)
    """Generation to content."""

    def steps(self) -> list[tuple[str, Any, Any]]:
        """Return (kind, offset or name, data or length)."""
        chance = random.Random(self.seed)
        there: list[str] = []
        steps: list[tuple[str, Any, Any]] = [("write", 0, chance.randbytes(SIZE))]
        for number in range(STEPS):
            kind = chance.choice(KINDS)
            if kind == "take" or (number < 2 and not there):
                there.append(f"s{number}")
                steps.append(("take", there[-1], None))
            elif kind == "delete":
                if there:
                    steps.append(("delete", there.pop(chance.randrange(len(there))), None))
            else:
                offset = chance.randrange(SIZE)
                length = min(chance.randrange(1, 6 * CHUNK), SIZE - offset)
                steps.append(
                    (kind, offset, chance.randbytes(length) if kind == "write" else length)
                )
        return steps

    def expect(self, step: tuple[str, Any, Any], generation: int = 0) -> None:
        """A step is done."""
        kind, where, what = step
        if kind == "take":
            self.snapshots[where] = bytes(self.content)
            self.before[generation] = bytes(self.content)
        elif kind == "delete":
            self.snapshots.pop(where, None)
        else:
            data = what if kind == "write" else bytes(what)
            self.content[where : where + len(data)] = data


def perform(origin: SnapshotOrigin, step: tuple[str, Any, Any]) -> int:
    """Do a step; return the generation that a new snapshot has."""
    kind, where, what = step
    if kind == "take":
        return origin.create(where, 0).generation
    if kind == "delete":
        origin.delete(where)
    else:
        getattr(origin, kind)(where, what)
    return 0


def play_until_killed(folder: Path, play: Play, calls: int) -> bool:
    """Play in another process that kills itself instead of a call; take in what it had done.

    Returns False if it came to the end.
    """
    open_origin(folder).close()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(told)
            with killed_after(calls):
                origin = open_origin(folder, limit=play.limit)
                for step in play.steps():
                    os.write(tell, b"%d\n" % perform(origin, step))
        finally:
            os._exit(7)
    os.close(tell)
    with os.fdopen(told) as lines:
        generations = [int(line) for line in lines]
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    steps = play.steps()
    assert killed or len(generations) == len(steps), "it failed by itself"
    for step, generation in zip(steps, generations, strict=False):
        play.expect(step, generation)
    if len(generations) < len(steps):
        kind, where, _ = under_way = steps[len(generations)]
        if kind == "delete":
            play.expect(under_way)
        elif kind != "take":
            # Of the write that was under way any part may be there.
            data = (folder / "disk").read_bytes()
            length = len(under_way[2]) if kind == "write" else under_way[2]
            new = under_way[2] if kind == "write" else bytes(length)
            for at in range(where, where + length):
                assert data[at] in (play.content[at], new[at - where])
            play.content[where : where + length] = data[where : where + length]
    return killed


@contextlib.contextmanager
def killed_after(calls: int) -> Any:
    """The process dies instead of the call with this number that changes a file or a folder."""
    left = calls

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                if real is pwrite and len(args[1]) > 1:
                    real(args[0], memoryview(args[1])[: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    pwrite = os.pwrite
    for name in ("pwrite", "ftruncate", "unlink", "replace", "fdatasync", "fsync", "open"):
        setattr(os, name, counting(getattr(os, name)))
    yield


def require_right(origin: SnapshotOrigin, play: Play, *, or_invalid: bool) -> int:
    """Every snapshot that was made is there and shows its moment; returns how many are valid."""
    there = {one.name: one for one in origin.snapshots()}
    valid = 0
    for name, expected in play.snapshots.items():
        if or_invalid and name not in there:
            continue
        snapshot = there[name]
        if or_invalid and not snapshot.valid:
            with pytest.raises(ReadError):
                snapshot.open().pread(0, 1)
            continue
        assert snapshot.open().pread(0, SIZE) == expected, (name, snapshot.invalid_because)
        valid += 1
    return valid


def require_true_changes(origin: SnapshotOrigin, play: Play) -> int:
    """What is said to be unchanged is; returns how often it was known what changed."""
    now = origin.create("now", 0)
    content = now.open().pread(0, SIZE)
    known = 0
    for generation, before in play.before.items():
        extents, complete = origin.changes(generation, "now")
        patched = bytearray(before)
        for offset, length in extents:
            patched[offset : offset + length] = content[offset : offset + length]
        assert patched == content
        known += complete
    return known


@pytest.mark.parametrize("seed", [0, *MORE_SEEDS])
def test_killed_anywhere_the_disk_and_its_snapshots_are_right(tmp_path, seed):
    point, killed = seed, True
    known = valid = 0
    while killed:
        folder = tmp_path / str(point)
        folder.mkdir()
        play = Play(seed)
        killed = play_until_killed(folder, play, point)
        origin = open_origin(folder)
        assert origin.pread(0, SIZE) == play.content
        valid += require_right(origin, play, or_invalid=False)
        # Life goes on, and what was saved for a snapshot that no one was told of is used.
        for number in range(5):
            origin.write(number * 5 * CHUNK + 100, bytes([number]) * 5000)
        require_right(origin, play, or_invalid=False)
        known += require_true_changes(origin, play)
        origin.close()
        shutil.rmtree(folder)
        point += 6
    assert point > 60
    assert valid > 8
    assert known > 10


def test_killed_while_snapshots_become_invalid_they_are_not_believed(tmp_path):
    """The delta store is full halfway: the truth must be told by what little can be written."""
    lost = 0
    for point in range(5, 400, 6):
        folder = tmp_path / str(point)
        folder.mkdir()
        play = Play(7, limit=9 * CHUNK)
        if not play_until_killed(folder, play, point):
            assert point > 60
            break
        origin = open_origin(folder, limit=9 * CHUNK)
        assert origin.pread(0, SIZE) == play.content
        lost += len(play.snapshots) - require_right(origin, play, or_invalid=True)
        require_true_changes(origin, play)
        origin.close()
        shutil.rmtree(folder)
    assert lost > 3


@pytest.mark.parametrize("snapshots_at_once", [1, 2])
def test_killed_before_a_snapshot_is_kept_its_writes_are_not_lost_to_older_ones(
    tmp_path, monkeypatch, snapshots_at_once
):
    """From the moment of a snapshot on its delta takes the old content, kept or not."""
    folder = tmp_path / "live"
    folder.mkdir()
    origin = open_origin(folder)
    origin.write(0, b"a" * SIZE)
    first = origin.create("first", 0)
    origin.write(0, b"b" * CHUNK)
    taken = 1
    images: list[Path] = []

    def killed(self: SnapshotOrigin) -> None:
        nonlocal taken
        if taken < snapshots_at_once:  # another one is taken before this one is kept
            taken += 1
            origin.write(taken * CHUNK, b"c" * (3 * CHUNK))
            origin.create(f"unkept{taken}", 0)
        elif not images:
            origin.write(2 * CHUNK, b"d" * (6 * CHUNK))
            images.append(image_of(folder, tmp_path / "left"))

    with monkeypatch.context() as patched:
        patched.setattr(SnapshotHistory, "_trim_and_save", killed)
        origin.create("unkept", 0)
    expected = (images[0] / "disk").read_bytes()
    left = open_origin(images[0])
    assert [one.name for one in left.snapshots()] == ["first"]
    assert left.snapshots()[0].open().pread(0, SIZE) == b"a" * SIZE
    assert left.pread(0, SIZE) == expected
    left.create("now", 0)
    extents, complete = left.changes(first.generation, "now")
    assert complete
    assert extents == [(0, CHUNK), (2 * CHUNK, 6 * CHUNK)]
    left.close()
    origin.close()


def test_where_nothing_can_be_written_any_more_invalid_is_still_told(tmp_path, monkeypatch):
    folder = tmp_path / "live"
    folder.mkdir()
    origin = open_origin(folder, limit=CHUNK)
    origin.write(0, b"a" * SIZE)
    origin.create("one", 0)
    origin.create("two", 0)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(SnapshotState, "save", full)
        origin.write(0, b"b" * SIZE)
    left = open_origin(image_of(folder, tmp_path / "left"))
    assert [one.invalid_because for one in left.snapshots()] == [
        "what it needs of old content is missing"
    ] * 2
    left.close()
    origin.close()


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_written_while_a_snapshot_is_deleted_is_not_shown_as_old(
    tmp_path, monkeypatch, fails
):
    """Killed before or after the deletion is kept, or where it cannot be kept at all."""
    folder = tmp_path / "live"
    folder.mkdir()
    origin = open_origin(folder)
    origin.write(0, b"a" * SIZE)
    origin.create("one", 0)
    save = SnapshotState.save

    def interrupted(*args: Any, **kwargs: Any) -> None:
        origin.write(0, b"b" * (3 * CHUNK))
        if not (tmp_path / "before").exists():
            image_of(folder, tmp_path / "before")
        if fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(*args, **kwargs)
        origin.write(4 * CHUNK, b"c" * (3 * CHUNK))
        image_of(folder, tmp_path / "kept")

    with monkeypatch.context() as patched:
        patched.setattr(SnapshotState, "save", interrupted)
        origin.delete("one")
    origin.write(8 * CHUNK, b"d" * (3 * CHUNK))
    image_of(folder, tmp_path / "after")
    for image in ("before", "after", "kept"):
        if not (tmp_path / image).exists():
            assert (image, fails) == ("kept", True)
            continue
        left = open_origin(tmp_path / image)
        require_right(left, Play(0, snapshots={"one": b"a" * SIZE}), or_invalid=image != "before")
        left.close()
    assert origin.snapshots() == []
    origin.create("one", 0)  # the name is free
    origin.close()


def play_until_power_is_cut(folder: Path, play: Play, operations: int) -> tuple[FailingDisk, bool]:
    """Play and close; what was going on when power was cut is part of the play or not."""
    open_origin(folder).close()
    disk = FailingDisk(folder, operations)
    with disk.installed():
        try:
            origin = open_origin(folder)
            for step in play.steps():
                if step[0] == "delete":
                    play.snapshots.pop(step[1])
                play.expect(step, perform(origin, step))
            origin.close()
        except PowerCut:
            return disk, True
    return disk, False


@pytest.mark.parametrize("seed", [0, *MORE_SEEDS])
def test_after_a_loss_of_power_snapshots_are_right_or_invalid(tmp_path, seed):
    operations, cut = seed, True
    chance = random.Random(seed)
    valid = unknown = 0
    while cut:
        folder, left = tmp_path / f"{operations}", tmp_path / f"{operations}-left"
        folder.mkdir()
        play = Play(seed)
        disk, cut = play_until_power_is_cut(folder, play, operations)
        disk.leave(left, chance)
        if (folder / "state").exists():  # it is synced wherever it is written
            shutil.copy2(folder / "state", left)
        origin = open_origin(left, boot="another start")
        there = {one.name for one in origin.snapshots()}
        if cut:  # the folder of the names is not what is tried here
            play.snapshots = {name: play.snapshots[name] for name in there & set(play.snapshots)}
        valid += require_right(origin, play, or_invalid=cut)
        known = require_true_changes(origin, play)
        if not cut:
            assert origin.pread(0, SIZE) == play.content
            assert known == len(play.before) > 0
        unknown += len(play.before) - known
        origin.close()
        operations += 5
    assert operations > 40
    assert valid > 0
    assert unknown > 5
