"""The opcode table of a logical unit: which commands exist, which of their bits are honoured.

Legality is data: a command without a row is refused, a bit that its row does not name is refused,
and REPORT SUPPORTED OPERATION CODES is read off the same rows, so what a unit says of itself is
what it does.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import ScsiError, illegal_request, invalid_field_in_cdb
from serverfree.scsi.opcodes import VARIABLE_LENGTH_CDB, cdb_length, control_at
from serverfree.scsi.sense import Asc
from serverfree.target.units.access import Access
from serverfree.target.units.command import Command, Lane, Reply

SERVICE_ACTION_MASK = 0x1F


@dataclass(frozen=True, slots=True)
class Row:
    """One command in a unit's opcode table.

    `usage` is the CDB usage data (SPC-4 6.35.3): the operation code, the service action in its
    field, and a one in every other bit that the unit honours; a command that sets any other bit
    ends with INVALID FIELD IN CDB. `run` gets the unit and the command; it may return a whole
    reply, data that goes with GOOD, or None for GOOD alone, and may raise ScsiError. `data_out`
    says how many bytes of data-out a CDB asks for. `offered` lets a unit leave a command out
    (UNMAP where nothing can be unmapped, EXTENDED COPY where there is no copy manager). `access` is
    what the command does as a reservation of another nexus sees it.
    """

    name: str
    usage: bytes
    run: Callable[[Any, Command], Reply | Buffer | None]
    data_out: Callable[[Any, bytes], int] | None = None
    lane: Lane | Callable[[Any, bytes], Lane] = Lane.INLINE
    in_attention: bool = False
    service_action: int | None = None
    offered: Callable[[Any], bool] | None = None
    access: Access | Callable[[bytes], Access] = Access.CHANGES

    @property
    def opcode(self) -> int:
        """The operation code, from the usage data."""
        return self.usage[0]

    def usage_with(self, control: int) -> bytes:
        """The usage data with these bits of the CONTROL byte, which is the same in all CDBs."""
        usage = bytearray(self.usage)
        usage[control_at(usage)] |= control
        return bytes(usage)


Table = Mapping[int, Row | Mapping[int, Row]]


def table_of(*rows: Row) -> Table:
    """Return the table that holds these rows: opcode -> row, or -> service action -> row."""
    return merge_tables({}, _nest(rows))


def merge_tables(*tables: Table) -> Table:
    """Join tables; of an operation code with service actions, the rows of all. Later ones win."""
    merged: dict[int, Row | Mapping[int, Row]] = {}
    for table in tables:
        for opcode, entry in table.items():
            present = merged.get(opcode)
            if isinstance(entry, Mapping) and isinstance(present, Mapping):
                merged[opcode] = {**present, **entry}
            else:
                merged[opcode] = entry
    return merged


def _nest(rows: tuple[Row, ...]) -> Table:
    nested: dict[int, Row | dict[int, Row]] = {}
    for row in rows:
        if row.service_action is None:
            nested[row.opcode] = row
        else:
            actions = nested.setdefault(row.opcode, {})
            assert isinstance(actions, dict), f"{row.name}: an opcode has service actions or not"
            actions[row.service_action] = row
    return nested


class Entry:
    """A row made ready for the gate: the CDB's length and the bits it must not set, as one int."""

    __slots__ = ("forbidden", "lane", "length", "row", "run")

    def __init__(self, row: Row, control: int) -> None:
        self.row = row
        self.run = row.run
        self.lane = row.lane
        self.length = cdb_length(row.usage)
        assert len(row.usage) == self.length, f"{row.name}: usage data of {len(row.usage)} bytes"
        honoured = bytearray(row.usage_with(control))
        honoured[0] = 0xFF
        if row.opcode == VARIABLE_LENGTH_CDB:
            honoured[7:10] = b"\xff\xff\xff"  # the length is checked, the action was looked up
        elif row.service_action is not None:
            honoured[1] |= SERVICE_ACTION_MASK
        self.forbidden = ~int.from_bytes(honoured, "big") & ((1 << 8 * self.length) - 1)

    def check(self, cdb: bytes) -> None:
        """Refuse a CDB that is cut short or sets a bit that the row does not honour."""
        length = self.length
        if len(cdb) < length:
            raise invalid_field_in_cdb(len(cdb))
        wrong = int.from_bytes(cdb[:length], "big") & self.forbidden
        if wrong:
            from_right = wrong.bit_length() - 1
            raise invalid_field_in_cdb(length - 1 - from_right // 8, from_right % 8)


class Dispatch:
    """A table as one unit offers it, ready for look-ups."""

    def __init__(self, unit: object, table: Table, control: int = 0) -> None:
        """`control` has the bits of the CONTROL byte that every command honours."""
        self.control = control
        self._entries: dict[int, Entry | dict[int, Entry]] = {}
        for opcode, item in table.items():
            if isinstance(item, Row):
                if item.offered is None or item.offered(unit):
                    self._entries[opcode] = Entry(item, control)
            else:
                actions = {
                    action: Entry(row, control)
                    for action, row in item.items()
                    if row.offered is None or row.offered(unit)
                }
                if actions:
                    self._entries[opcode] = actions

    def find(self, cdb: bytes) -> Entry:
        """Return the entry of a CDB, its bits checked.

        Raises 5/20/00 for an unknown operation code, 5/24/00 for an unknown service action (with
        a pointer at its field) or a bit that is not honoured (with a pointer at the leftmost).
        """
        entry = self._entries.get(cdb[0]) if cdb else None
        if entry is None:
            raise illegal_request(Asc.INVALID_COMMAND_OPERATION_CODE)
        if isinstance(entry, dict):
            if cdb[0] == VARIABLE_LENGTH_CDB:
                action = entry.get(int.from_bytes(cdb[8:10], "big"))
                if action is None:
                    raise invalid_field_in_cdb(8)
                if cdb_length(cdb) != action.length:
                    raise invalid_field_in_cdb(7)
            else:
                action = entry.get(cdb[1] & SERVICE_ACTION_MASK) if len(cdb) > 1 else None
                if action is None:
                    raise invalid_field_in_cdb(1, 4)
            entry = action
        entry.check(cdb)
        return entry

    def peek(self, cdb: bytes) -> Entry | None:
        """Return the entry of a CDB of full length, its bits not checked; None if it has none.

        For decisions before the gate: it costs a fraction of `find`.
        """
        entry = self._entries.get(cdb[0])
        if not isinstance(entry, dict):
            return entry
        try:
            return self.find(cdb)
        except ScsiError:
            return None

    def rows(self) -> Iterator[Row]:
        """Every row, by operation code and service action."""
        for _, entry in sorted(self._entries.items(), key=lambda item: item[0]):
            if isinstance(entry, Entry):
                yield entry.row
            else:
                for _, nested in sorted(entry.items()):
                    yield nested.row

    def lookup(self, opcode: int) -> Row | Mapping[int, Row] | None:
        """Return what is offered for an operation code: a row, rows by service action, or None."""
        entry = self._entries.get(opcode)
        if entry is None or isinstance(entry, Entry):
            return entry.row if entry is not None else None
        return {action: nested.row for action, nested in entry.items()}
