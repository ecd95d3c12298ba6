"""The storage system's management API, as its client sees it: snapshots of disks, by name."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

TOKEN_VARIABLE = "SERVERFREE_TOKEN"
_ANSWER = 30.0  # seconds for an answer, beyond those that were asked to be waited
_POLL = 0.25
_DEFAULT_TIMEOUT = 80.0
_LONGEST_MESSAGE = 500


class ArrayError(OSError):
    """The storage system refused or could not be asked; the text is one line."""

    status: int | None = None
    """The HTTP status of a refusal, None where nothing was answered."""


def token_from_environment() -> str:
    """Return the token that the storage system asks for. Raises ArrayError if there is none."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise ArrayError(f"{TOKEN_VARIABLE} is not set: the storage system asks for its token")
    return token


class SnapshotTimeout(ArrayError):
    """No quiet period came in time. Times are seconds."""

    quiet: float = 0.0
    """The period that was asked for."""
    timeout: float = 0.0
    waited: float = 0.0
    last_write_age: float | None = None
    """How long ago the last write was when the wait ended, None where none is known."""


class SnapshotInUse(ArrayError):
    """The snapshot is being read; deleting it takes `force`."""


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A disk of the storage system. Sizes are bytes, times seconds, `designator` hexadecimal.

    `quiet` is how long nothing has changed the disk, None where no snapshots can be taken of it;
    `quiet_period` and `quiet_timeout` are what a snapshot waits for unless told otherwise.
    """

    name: str
    target: str
    lun: int
    url: str
    designator: str
    serial: str
    size: int
    block_size: int
    readonly: bool
    snapshots: bool
    quiet: float | None
    quiet_period: float
    quiet_timeout: float
    generation: int | None


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """A snapshot. `url` is where it can be read; `created` is ISO 8601 with its zone.

    `consistency` is `crash`, `fs` or `app`, as whoever asked for it said. `generation` counts the
    snapshots of the disk: `Array.changes` answers what changed since one, even if its snapshot is
    gone. `invalid` says why it cannot be read any more, None while it can.
    """

    name: str
    disk: str
    target: str
    lun: int
    url: str
    designator: str
    serial: str
    created: str
    consistency: str
    generation: int
    size: int
    invalid: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from an earlier generation: (offset, length) in bytes, in ascending order.

    Unless `complete` not all is known, and everything has to be taken for changed.
    """

    extents: tuple[tuple[int, int], ...]
    complete: bool


_Facts = TypeVar("_Facts", DiskFacts, SnapshotFacts)
Progress = Callable[[float, float], None]
"""Called now and then during a wait with how long the disk has been quiet, and how long we wait."""


class Array:
    """A client of the management API at `url`, http://HOST:PORT. A context manager.

    The token is that of SERVERFREE_TOKEN unless given. Every method raises ArrayError.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        token = token_from_environment() if token is None else token
        self.url = url.rstrip("/")
        try:
            self._client = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {token}"},
                timeout=_ANSWER,
                # Certificates are looked for when there is something to check: it takes a while.
                verify=self.url.lower().startswith("https:"),
                trust_env=False,  # no proxy stands between a server and its storage
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ArrayError(f"{url}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    # ---------------------------------------------------------------- disks

    def disks(self) -> list[DiskFacts]:
        """Return every disk."""
        return _all(DiskFacts, self._ask("GET", "/disks"))

    def find_disk(self, wanted: str) -> DiskFacts:
        """Return the disk of this name, designator (hexadecimal), serial number or URL.

        Raises ArrayError if there is none, or if two targets have a disk of that name.
        """
        found = [disk for disk in self.disks() if _is_named(disk, wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            where = ", ".join(f"{disk.designator} ({disk.target})" for disk in found)
            raise ArrayError(f"{self.url}: several disks are named {wanted}: say which: {where}")
        raise ArrayError(f"{self.url}: there is no disk {wanted}")

    # ---------------------------------------------------------------- snapshots

    def snapshots(self) -> list[SnapshotFacts]:
        """Return every snapshot, the oldest of a disk first."""
        return _all(SnapshotFacts, self._ask("GET", "/snapshots"))

    def create(
        self,
        disk: str,
        *,
        quiet: float | None = None,
        timeout: float | None = None,
        name: str | None = None,
        consistency: str = "crash",
        progress: Progress | None = None,
    ) -> SnapshotFacts:
        """Take a snapshot of a disk, named as for `find_disk`, and return when it can be read.

        The disk has to have been left unwritten for `quiet` seconds, for which `timeout` seconds
        are waited (default: the disk's settings). Raises SnapshotTimeout. An interrupt, or the end
        of this process, ends the wait at the other side too. `progress` is called by a thread of
        its own.
        """
        found = self.find_disk(disk)
        wish = {"quiet": quiet, "timeout": timeout, "name": name, "consistency": consistency}
        patience = (found.quiet_timeout if timeout is None else timeout) + _ANSWER
        place = f"/disks/{found.designator}/snapshots"
        ended = Event()
        if progress is not None:
            Thread(
                target=self._watch, args=(found.designator, progress, ended), daemon=True
            ).start()
        try:
            row = self._ask(
                "POST",
                place,
                json={key: value for key, value in wish.items() if value is not None},
                timeout=patience,
            )
        finally:
            ended.set()
        return _made(SnapshotFacts, row)

    def delete(self, name: str, *, force: bool = False, patience: float = 10.0) -> None:
        """Delete a snapshot, by name or designator.

        While somebody reads it that is refused; then it is tried again for `patience` seconds (who
        has just read it to the end counts as reading for a moment) before SnapshotInUse is raised.
        """
        deadline = monotonic() + patience
        while True:
            try:
                self._ask(
                    "DELETE",
                    f"/snapshots/{quote(name, safe='')}",
                    params={"force": "true" if force else "false"},
                )
                return
            except SnapshotInUse:
                if monotonic() >= deadline:
                    raise
                sleep(min(0.5, patience))

    def changes(self, name: str, since: int) -> Changes:
        """Return what differs between a snapshot and an earlier generation of its disk."""
        row = self._ask(
            "GET", f"/snapshots/{quote(name, safe='')}/changes", params={"since": str(since)}
        )
        try:
            extents = tuple((int(offset), int(length)) for offset, length in row["extents"])
            return Changes(extents, row["complete"] is True)
        except (TypeError, KeyError, ValueError) as error:
            raise _not_understood(error) from None

    # ---------------------------------------------------------------- asking

    def _watch(self, disk: str, progress: Progress, ended: Event) -> None:
        began = monotonic()
        while not ended.wait(_POLL):
            try:
                quiet = self._ask("GET", f"/disks/{disk}/quiet")["quiet"]
            except ArrayError:
                continue  # the request that matters says what is wrong
            if not ended.is_set():
                progress(float(quiet), monotonic() - began)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
        timeout: float = _ANSWER,
    ) -> Any:
        try:
            answer = self._client.request(
                method, path, json=json, params=params, timeout=httpx.Timeout(_ANSWER, read=timeout)
            )
            if answer.is_success:
                return answer.json() if answer.content else None
            problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        except httpx.HTTPError as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise ArrayError(f"{self.url}: {text}") from None
        except ValueError as error:
            raise ArrayError(f"{self.url}: not the management API: {error}") from None
        raise _refusal(self.url, answer, problem if isinstance(problem, dict) else {})


def _refusal(url: str, answer: httpx.Response, problem: dict[str, Any]) -> ArrayError:
    what = problem.get("detail") or problem.get("title") or answer.reason_phrase
    text = f"{url}: {' '.join(str(what).split())[:_LONGEST_MESSAGE]}"
    kind = str(problem.get("type", "")).rpartition(":")[2]
    error: ArrayError
    if kind == "not-quiet":
        error = late = SnapshotTimeout(text)
        late.quiet, late.timeout = (_number(problem.get(name)) for name in ("asked", "timeout"))
        late.waited = _number(problem.get("waited"))
        late.last_write_age = problem.get("last_write_age")
    elif kind == "in-use":
        error = SnapshotInUse(text)
    else:
        error = ArrayError(text)
    error.status = answer.status_code
    return error


def _is_named(disk: DiskFacts, wanted: str) -> bool:
    plain = wanted.lower().removeprefix("naa.").removeprefix("0x")
    if wanted == disk.name or plain in (disk.designator.lower(), disk.serial.lower()):
        return True
    # The host of a URL is whatever address the storage system is reached by from here.
    scheme, _, rest = wanted.partition("://")
    _, _, path = rest.partition("/")
    return scheme == "iscsi" and path.partition("?")[0] == f"{disk.target}/{disk.lun}"


def _made(kind: type[_Facts], row: Any) -> _Facts:
    """Make a dataclass of a row; what a newer storage system says besides is not for us."""
    try:
        return kind(**{each.name: row[each.name] for each in fields(kind) if each.name in row})
    except (TypeError, KeyError) as error:
        raise _not_understood(error) from None


def _all(kind: type[_Facts], rows: Any) -> list[_Facts]:
    if not isinstance(rows, list):
        raise _not_understood("not a list")
    return [_made(kind, row) for row in rows]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _not_understood(why: object) -> ArrayError:
    return ArrayError(f"the storage system's answer cannot be understood: {why}")
