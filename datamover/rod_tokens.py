"""The ROD tokens of one SCSI target device: made, found again, and gone when their time is over.

SPC-4 5.17.6.4 to 5.17.6.7. A token gives a right to its data: whoever has it may use it at any copy
manager of the target device. Tokens live in memory: a restart ends them.
"""

import contextlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hmac import compare_digest

from serverfree.datamover.rods import Rod
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.designator import (
    Association,
    CodeSet,
    Designator,
    DesignatorType,
    locally_assigned,
)
from serverfree.scsi.errors import CheckCondition, illegal_request
from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.rod_token import (
    MANAGEMENT_TOKEN_LENGTH,
    ROD_TOKEN_LENGTH,
    RodToken,
    RodType,
)
from serverfree.scsi.sense import Asc

_TARGET_DESCRIPTOR = 128  # bytes of the TARGET DEVICE DESCRIPTOR field
_MOST_REMEMBERED = 4096  # tokens that have ended, for the sake of saying why
_OURS = frozenset(RodType) - {RodType.FROM_TOKEN, RodType.ANY_POINT_IN_TIME}


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Times in seconds, and how many tokens there may be at once."""

    minimum_lifetime: int = 60
    maximum_lifetime: int = 24 * 3600
    default_inactivity: int = 60
    maximum_inactivity: int = 24 * 3600
    tokens: int = 64


@dataclass(slots=True, eq=False)
class _Record:
    token: bytes
    creator: Designator
    ends: float
    inactivity: float  # infinite for a token that may lie idle
    idle_since: float
    rod: Rod | None  # None once it has ended, and nobody reads it
    using: int = 0
    ended: Asc | None = None

    def deadline(self) -> float:
        """When it ends by itself."""
        return self.ends if self.using else min(self.ends, self.idle_since + self.inactivity)


class RodTokens:
    """The tokens of the copy managers of `target`. Safe to use from any thread.

    With `watch` a thread ends tokens in time; else whoever asks for something does.
    """

    def __init__(
        self,
        target: str,
        limits: TokenLimits = TokenLimits(),
        *,
        clock: Callable[[], float] = time.monotonic,
        watch: bool = False,
    ) -> None:
        self.limits = limits
        self._target = _target_descriptor(target)
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._records: dict[bytes, _Record] = {}
        self._past: OrderedDict[bytes, _Record] = OrderedDict()
        self._closed = False
        self._watch = watch
        self._watcher: threading.Thread | None = None

    def require_room(self) -> None:
        """Raise ILLEGAL REQUEST if there are as many tokens as there may be."""
        with self._lock:
            self.expire()
            if self._closed or len(self._records) >= self.limits.tokens:
                raise illegal_request(Asc.INSUFFICIENT_RESOURCES_TO_CREATE_ROD)

    def create(self, rod: Rod, lifetime: int, inactivity: int, creator: Designator) -> bytes:
        """Return a token of a ROD, which is the token's from now on.

        Both times are in seconds; `lifetime` is at least the shortest there is, and with
        `inactivity` 0 the token may lie idle as long. Raises ILLEGAL REQUEST; then the ROD is still
        the caller's.
        """
        limits = self.limits
        lifetime = max(lifetime, limits.minimum_lifetime)
        with self._lock:
            self.require_room()
            now = self._clock()
            token = RodToken(
                rod.type,
                secrets.token_bytes(8),
                IdentificationCscd(
                    creator, BlockParameters(rod.block_length), DeviceType.DISK
                ).pack(),
                rod.size,
                rod.capacity[8:32].ljust(32, b"\0"),
                self._target,
                secrets.token_bytes(256),
            )
            record = _Record(
                token.pack(), creator, now + lifetime, inactivity or float("inf"), now, rod
            )
            self._records[token.identifier] = record
            self._keep_watch()
        return record.token

    @contextmanager
    def used(self, token: bytes) -> Iterator[Rod]:
        """Find the ROD of a token; within the block it does not go.

        Raises the ILLEGAL REQUEST of 5.17.6.5.2.3.
        """
        with self._lock:
            self.expire()
            record = self._find(token)
            record.using += 1
        rod = record.rod
        assert rod is not None
        try:
            yield rod
        finally:
            with self._lock:
                record.using -= 1
                record.idle_since = self._clock()
                if record.ended is not None:
                    _release(record)
                self._changed.notify_all()

    def delete(self, token: bytes) -> None:
        """End a token that there is; who uses it now may go on."""
        with self._lock, contextlib.suppress(CheckCondition):
            self._end(self._find(token), Asc.INVALID_TOKEN_OPERATION_TOKEN_DELETED)

    def management_tokens(self, creator: Designator) -> list[bytes]:
        """Return what REPORT ALL ROD TOKENS tells of the tokens that one copy manager made."""
        with self._lock:
            self.expire()
            return [
                record.token[:MANAGEMENT_TOKEN_LENGTH]
                for record in self._records.values()
                if record.creator.same(creator)
            ]

    def expire(self) -> None:
        """End the tokens whose time is over, and those whose data is no longer what it was."""
        with self._lock:
            now = self._clock()
            for record in list(self._records.values()):
                if record.deadline() <= now:
                    self._end(record, Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED)
                elif record.rod is not None and not record.rod.valid:
                    self._end(record, Asc.INVALID_TOKEN_OPERATION_TOKEN_CANCELLED)
            while self._past:
                oldest = next(iter(self._past.values()))
                # Twice the lifetime is long enough to have told why (5.17.6.7).
                kept = oldest.ends + self.limits.maximum_lifetime
                if len(self._past) <= _MOST_REMEMBERED and kept > now:
                    break
                self._past.popitem(last=False)

    def cancel(self, creator: Designator) -> None:
        """A unit goes: so do the tokens of its data."""
        with self._lock:
            for record in list(self._records.values()):
                if record.creator.same(creator):
                    self._end(record, Asc.INVALID_TOKEN_OPERATION_TOKEN_CANCELLED)

    def close(self) -> None:
        """End every token."""
        with self._lock:
            self._closed = True
            for record in list(self._records.values()):
                self._end(record, Asc.INVALID_TOKEN_OPERATION_TOKEN_CANCELLED)
            self._changed.notify_all()
            watcher = self._watcher
        if watcher is not None:
            watcher.join()

    def _find(self, raw: bytes) -> _Record:
        token = RodToken.unpack(raw)
        if token.length != ROD_TOKEN_LENGTH:
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH)
        if token.type not in _OURS:
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE)
        if token.creator[0] != IdentificationCscd.TYPE:
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_TOKEN_CORRUPT)
        if token.target != self._target:
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_REMOTE_TOKEN_USAGE_NOT_SUPPORTED)
        record = self._records.get(token.identifier) or self._past.get(token.identifier)
        if record is None or not compare_digest(record.token, raw):
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)
        if record.ended is not None:
            raise _invalid(record.ended)
        return record

    def _end(self, record: _Record, why: Asc) -> None:
        identifier = RodToken.unpack(record.token).identifier
        record.ended = why
        del self._records[identifier]
        self._past[identifier] = record
        _release(record)

    def _keep_watch(self) -> None:
        if not self._watch:
            return
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._look, name="ROD tokens", daemon=True)
            self._watcher.start()
        self._changed.notify_all()

    def _look(self) -> None:
        with self._changed:
            while not self._closed:
                self.expire()
                next_end = min(
                    (record.deadline() for record in self._records.values()), default=None
                )
                wait = None if next_end is None else max(0.01, next_end - self._clock())
                self._changed.wait(None if wait is None else min(wait, threading.TIMEOUT_MAX))


def _release(record: _Record) -> None:
    """Let go of the data of a token that has ended, unless somebody reads it."""
    if record.rod is not None and not record.using:
        rod, record.rod = record.rod, None
        with contextlib.suppress(OSError, ValueError):  # what is left is found at the next start
            rod.release()


def _invalid(asc: Asc) -> CheckCondition:
    return illegal_request(asc)


def _target_descriptor(target: str) -> bytes:
    """Name the target device: by its iSCSI name, or by a number made of it where that is long."""
    name = target.encode() + b"\0"
    name += bytes(-len(name) % 4)
    described = Designator(
        DesignatorType.SCSI_NAME_STRING, name, CodeSet.UTF_8, Association.TARGET_DEVICE
    ).pack()
    if len(described) > _TARGET_DESCRIPTOR:
        number = locally_assigned(target, "").identifier
        described = Designator(
            DesignatorType.NAA, number, association=Association.TARGET_DEVICE
        ).pack()
    return described.ljust(_TARGET_DESCRIPTOR, b"\0")
