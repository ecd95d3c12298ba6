"""The alias lists of a copy manager, one for each I_T nexus (SPC-4 6.2)."""

import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from serverfree.scsi.copy_aliases import AliasEntry, pack_report, unpack_change
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import illegal_request, invalid_field_in_parameter_list
from serverfree.scsi.sense import Asc

_MOST = 256  # aliases of a nexus
_PROTOCOL, _LENGTH = 8, 14  # bytes of an entry


class Aliases:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: dict[Hashable, dict[bytes, AliasEntry]] = {}
        self._users: Counter[Hashable] = Counter()

    def change(self, nexus: Hashable, parameter_list: Buffer) -> None:
        """CHANGE ALIASES: all of the list or nothing. Raises ILLEGAL REQUEST."""
        try:
            entries = unpack_change(parameter_list)
        except ValueError:
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR) from None
        with self._lock:
            if entries and self._users[nexus]:
                raise illegal_request(Asc.OPERATION_IN_PROGRESS)
            changed = dict(self._lists.get(nexus, {}))
            for at, entry in entries:
                if len(entry.designation) % 4:
                    raise invalid_field_in_parameter_list(at + _LENGTH)
                if entry.removes:
                    changed.pop(entry.value, None)
                elif entry.iscsi_name is None:
                    raise invalid_field_in_parameter_list(at + _PROTOCOL)
                else:
                    changed[entry.value] = entry
            if len(changed) > _MOST:
                raise illegal_request(Asc.INSUFFICIENT_RESOURCES)
            self._lists[nexus] = changed

    def report(self, nexus: Hashable) -> bytes:
        """REPORT ALIASES: the whole response."""
        with self._lock:
            return pack_report(self._lists.get(nexus, {}).values())

    @contextmanager
    def used(self, nexus: Hashable) -> Iterator[None]:
        """A command that refers to aliases is under way: they stay as they are."""
        with self._lock:
            self._users[nexus] += 1
        try:
            yield
        finally:
            with self._lock:
                self._users[nexus] -= 1
                self._users += Counter()  # of those that have none, no trace

    def find(self, nexus: Hashable, value: bytes) -> str | None:
        """Return the name of the iSCSI node that an alias stands for."""
        with self._lock:
            entry = self._lists.get(nexus, {}).get(value)
        return None if entry is None else entry.iscsi_name

    def forget(self, nexus: Hashable) -> None:
        """The nexus is lost, and its list with it."""
        with self._lock:
            self._lists.pop(nexus, None)

    def clear(self) -> None:
        """Logical unit reset: all lists go."""
        with self._lock:
            self._lists.clear()
