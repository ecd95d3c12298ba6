"""The reservation commands of every unit that can be reserved (SPC-4 6.15, 6.16; SPC-2 7.16)."""

from collections.abc import Callable
from typing import Any

from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.cdb.reservation import (
    PersistentReserveOut,
    ReadFullStatus,
    ReadKeys,
    ReadReservation,
    Release6,
    Release10,
    ReportCapabilities,
    Reserve6,
    Reserve10,
    ReserveOut,
)
from serverfree.scsi.errors import (
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.reservations import (
    BASIC_LENGTH,
    MoveList,
    ReserveOutList,
    pack_capabilities,
    pack_full_status,
    pack_keys,
    pack_reservation,
)
from serverfree.scsi.sense import Asc
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, Table, Unit, table_of
from serverfree.target.units.command import Command, Lane

_LONGEST_LIST = 1 << 16  # more TransportIDs than may be registered


def _read_keys(unit: Unit) -> bytes:
    return pack_keys(unit.reservations.generation, unit.reservations.keys())


def _read_reservation(unit: Unit) -> bytes:
    return pack_reservation(unit.reservations.generation, unit.reservations.reservation())


def _report_capabilities(unit: Unit) -> bytes:
    reservations = unit.reservations
    return pack_capabilities(can_persist=reservations.can_persist, persists=reservations.persists)


def _read_full_status(unit: Unit) -> bytes:
    return pack_full_status(unit.reservations.generation, unit.reservations.full_status())


def _reserve_in(name: str, layout: type[Cdb], report: Callable[[Unit], bytes]) -> Row:
    length = layout.PLACES["allocation_length"].slice

    def run(unit: Unit, command: Command) -> bytes:
        return report(unit)[: int.from_bytes(command.cdb[length], "big")]

    return Row(
        f"PERSISTENT RESERVE IN, {name}",
        layout.USAGE,
        run,
        service_action=layout.SERVICE_ACTION,
        access=Access.RESERVES,
    )


def _reserve_out(unit: Unit, command: Command) -> None:
    cdb = PersistentReserveOut.unpack(command.cdb)
    data = bytes(command.data_out[: cdb.parameter_list_length])
    if len(data) < cdb.parameter_list_length or cdb.parameter_list_length > _LONGEST_LIST:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if cdb.service_action == ReserveOut.REGISTER_AND_MOVE:
        move = _unpacked(MoveList.unpack, data)
        unit.reservations.register_and_move(command.nexus, move, cdb.scope, cdb.type)
        return
    order = _unpacked(ReserveOutList.unpack, data)
    if len(data) != BASIC_LENGTH and not order.specify_initiator_ports:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    nexus, reservations = command.nexus, unit.reservations
    match cdb.service_action:
        case ReserveOut.REGISTER:
            reservations.register(nexus, order, ignore_key=False)
        case ReserveOut.REGISTER_AND_IGNORE_EXISTING_KEY:
            reservations.register(nexus, order, ignore_key=True)
        case ReserveOut.RESERVE:
            reservations.reserve(nexus, order, cdb.scope, cdb.type)
        case ReserveOut.RELEASE:
            reservations.release(nexus, order, cdb.scope, cdb.type)
        case ReserveOut.CLEAR:
            reservations.clear(nexus, order)
        case ReserveOut.PREEMPT | ReserveOut.PREEMPT_AND_ABORT as action:
            abort = action == ReserveOut.PREEMPT_AND_ABORT
            reservations.preempt(nexus, order, cdb.scope, cdb.type, abort=abort)


def _unpacked(unpack: Callable[[bytes], Any], data: bytes) -> Any:
    if len(data) < BASIC_LENGTH:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    try:
        return unpack(data)
    except ValueError:
        raise invalid_field_in_parameter_list(BASIC_LENGTH) from None


def _reserve_out_length(unit: Unit, cdb: bytes) -> int:
    length = PersistentReserveOut.unpack(cdb).parameter_list_length
    return length if length <= _LONGEST_LIST else 0  # what is refused is not asked for


def _reserve_out_action(action: ReserveOut) -> Row:
    usage = bytearray(PersistentReserveOut.USAGE)
    usage[1] = action
    return Row(
        f"PERSISTENT RESERVE OUT, {action.name.replace('_', ' ')}",
        bytes(usage),
        _reserve_out,
        data_out=_reserve_out_length,
        lane=Lane.QUEUED,
        service_action=action,
        access=Access.RESERVES,
    )


def _require_no_third_party(layout: type[Reserve10] | type[Release10], command: Command) -> None:
    cdb = layout.unpack(command.cdb)
    if cdb.third_party or cdb.long_id:
        # There is no protocol but parallel SCSI in which these device identifiers mean anything.
        raise invalid_field_in_cdb(1, 4 if cdb.third_party else 1)


def _reserve_6(unit: Unit, command: Command) -> None:
    unit.reservations.reserve_unit(command.nexus)


def _release_6(unit: Unit, command: Command) -> None:
    unit.reservations.release_unit(command.nexus)


def _reserve_10(unit: Unit, command: Command) -> None:
    _require_no_third_party(Reserve10, command)
    unit.reservations.reserve_unit(command.nexus)


def _release_10(unit: Unit, command: Command) -> None:
    _require_no_third_party(Release10, command)
    unit.reservations.release_unit(command.nexus)


RESERVATION_TABLE: Table = table_of(
    _reserve_in("READ KEYS", ReadKeys, _read_keys),
    _reserve_in("READ RESERVATION", ReadReservation, _read_reservation),
    _reserve_in("REPORT CAPABILITIES", ReportCapabilities, _report_capabilities),
    _reserve_in("READ FULL STATUS", ReadFullStatus, _read_full_status),
    *map(_reserve_out_action, ReserveOut),
    Row("RESERVE(6)", Reserve6.USAGE, _reserve_6, access=Access.RESERVES),
    Row("RELEASE(6)", Release6.USAGE, _release_6, access=Access.RESERVES),
    Row("RESERVE(10)", Reserve10.USAGE, _reserve_10, access=Access.RESERVES),
    Row("RELEASE(10)", Release10.USAGE, _release_10, access=Access.RESERVES),
)
