"""Data encryption of a tape drive (SSC-4 4.2.22, 8.5): parameters, and the blocks they are for.

Keys are in memory only: a reset, the loss of a nexus whose own they are or the end of the process
forgets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serverfree.scsi import encryption
from serverfree.scsi.cdb.security import SecurityProtocolIn, SecurityProtocolOut
from serverfree.scsi.encryption import (
    BlockStatus,
    DecryptionMode,
    EncryptionMode,
    InPage,
    Kad,
    KadType,
    OutPage,
    Scope,
    SetDataEncryption,
)
from serverfree.scsi.errors import (
    CheckCondition,
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.backstore.cartridge_coding import (
    KEY_LENGTH,
    MAX_A_KAD,
    MAX_U_KAD,
    Envelope,
    Key,
    Place,
    decoded,
)
from serverfree.target.backstore.cartridge_errors import DamagedRecord, WrongKey
from serverfree.target.backstore.cartridge_log import Coding, RecordType, StoredBlock
from serverfree.target.units.command import Command, Nexus

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit
    from serverfree.target.units.stream_medium import Medium

_ALGORITHM = 1  # the index of AES-256-GCM, the only one
_MAX_KAD_FORMAT = 2
_IN_PAGES = tuple(InPage)
_KAD_NOT_CHECKED, _KAD_CHECKED = 1, 2  # AUTHENTICATED of what comes off the medium
_CANNOT_TELL, _NO_BLOCK, _NOT_COMPRESSED, _COMPRESSED = 1, 2, 3, 4  # COMPRESSION STATUS
_CEEM, _RDMC = 0xC0, 0x30
_NO_CEEM, _RAW_DISABLED = (0x00, 0x40), (0x00, 0x30)


@dataclass(frozen=True, slots=True)
class Parameters:
    """How blocks are written and read for a nexus."""

    encryption: int = EncryptionMode.DISABLE
    decryption: int = DecryptionMode.DISABLE
    key: Key | None = None
    clear_on_demount: bool = False
    instance: int = 0

    @property
    def disabled(self) -> bool:
        """Return whether blocks go by as they are."""
        return not (self.encryption or self.decryption)


_DISABLED = Parameters()


class StreamEncryption:
    """The data encryption parameters of a drive; false while nobody has set any."""

    def __init__(self) -> None:
        self._shared = _DISABLED
        self._local: dict[Nexus, Parameters] = {}
        self.instance = 0
        """KEY INSTANCE COUNTER: how often parameters were set."""

    def __bool__(self) -> bool:
        return bool(self._local) or self._shared is not _DISABLED

    def parameters(self, nexus: Nexus) -> Parameters:
        """Return what holds for a nexus."""
        return self._local.get(nexus, self._shared)

    def scope(self, nexus: Nexus) -> Scope:
        """Return whose parameters those are."""
        if nexus in self._local:
            return Scope.LOCAL
        return Scope.PUBLIC if self._shared is _DISABLED else Scope.ALL_NEXUSES

    def set(self, nexus: Nexus, scope: int, parameters: Parameters) -> None:
        """Let parameters hold for a nexus, or for all that have none of their own."""
        match scope:
            case Scope.PUBLIC:
                self._local.pop(nexus, None)
            case Scope.LOCAL:
                self._local[nexus] = parameters
            case _:
                self._local.pop(nexus, None)
                self._shared = _DISABLED if parameters.disabled else parameters

    def forget(self, nexus: Nexus) -> None:
        """Forget what a nexus had for itself."""
        self._local.pop(nexus, None)

    def demounted(self) -> None:
        """Forget the keys that were for the medium that has gone (CKOD)."""
        if self._shared.clear_on_demount:
            self._shared = _DISABLED
        for nexus in [one for one, each in self._local.items() if each.clear_on_demount]:
            del self._local[nexus]

    def key_for_writing(self, nexus: Nexus) -> Key | None:
        """Return the key that blocks of this nexus are to be encrypted with, None for none."""
        parameters = self.parameters(nexus)
        return parameters.key if parameters.encryption == EncryptionMode.ENCRYPT else None

    def decoded(self, stored: StoredBlock, medium: Medium, block: int, nexus: Nexus) -> memoryview:
        """Return a block as it was written.

        What must not be read is DATA PROTECT, with the heads before it: with another key the same
        READ may do better, and IBM's drives stay there (GA32-0928-06 table 16, "Read Perm").
        Raises DamagedRecord.
        """
        parameters = self.parameters(nexus)
        if not stored.coding & Coding.ENCRYPTED:
            if parameters.decryption == DecryptionMode.DECRYPT:
                raise _refused(medium, block, Asc.UNENCRYPTED_DATA_ENCOUNTERED_WHILE_DECRYPTING)
            return decoded(stored)
        if parameters.decryption == DecryptionMode.DISABLE or parameters.key is None:
            raise _refused(medium, block, Asc.UNABLE_TO_DECRYPT_DATA)
        place = Place(medium.cartridge.identity.bytes, medium.number, block)
        try:
            return decoded(parameters.key.opened(stored, place))
        except WrongKey:
            raise _refused(medium, block, Asc.INCORRECT_DATA_ENCRYPTION_KEY) from None
        except DamagedRecord:
            asc = Asc.CRYPTOGRAPHIC_INTEGRITY_VALIDATION_FAILED
            raise _refused(medium, block, asc) from None


def _refused(medium: Medium, block: int, asc: Asc) -> CheckCondition:
    medium.block = block
    return CheckCondition(Sense(SenseKey.DATA_PROTECT, asc))


# SECURITY PROTOCOL OUT


def security_protocol_out_length(unit: StreamUnit, cdb: bytes) -> int:
    """Bytes of data-out that the command brings."""
    out = SecurityProtocolOut.unpack(cdb)
    return out.transfer_length * (512 if out.increments else 1)


def security_protocol_out(unit: StreamUnit, command: Command) -> None:
    """SECURITY PROTOCOL OUT: the Set Data Encryption page."""
    cdb = SecurityProtocolOut.unpack(command.cdb)
    if cdb.protocol != encryption.TAPE_DATA_ENCRYPTION:
        raise invalid_field_in_cdb(1)
    if cdb.specific != OutPage.SET_DATA_ENCRYPTION:
        raise invalid_field_in_cdb(2)
    raw = bytes(command.data_out)
    if cdb.increments:  # padded to the next 512 bytes
        raw = raw[: 4 + int.from_bytes(raw[2:4], "big")]
    try:
        page = SetDataEncryption.unpack(raw)
    except ValueError:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR) from None
    with unit.lock:
        parameters = _checked(page, unit.encryption.instance + 1)
        unit.encryption.instance += 1
        unit.encryption.set(command.nexus, page.scope, parameters)
    if page.scope == Scope.ALL_NEXUSES:
        asc = Asc.DATA_ENCRYPTION_PARAMETERS_CHANGED_BY_ANOTHER_I_T_NEXUS
        unit.raise_attention(asc, but=command.nexus)


def _checked(page: SetDataEncryption, instance: int) -> Parameters:
    """Return what the page asks for. Raises ILLEGAL REQUEST for what this drive does not do."""
    if page.scope > Scope.ALL_NEXUSES or page.lock:
        raise invalid_field_in_parameter_list(4)
    controls = page.other_controls
    # No supplemental keys, none that reservations clear, no external mode, no raw reading.
    if controls & ~(_CEEM | _RDMC) or controls & _CEEM not in _NO_CEEM:
        raise invalid_field_in_parameter_list(5)
    if controls & _RDMC not in _RAW_DISABLED:
        raise invalid_field_in_parameter_list(5, 5)
    if page.encryption not in (EncryptionMode.DISABLE, EncryptionMode.ENCRYPT):
        raise invalid_field_in_parameter_list(6)
    if page.decryption not in (
        DecryptionMode.DISABLE,
        DecryptionMode.DECRYPT,
        DecryptionMode.MIXED,
    ):
        raise invalid_field_in_parameter_list(7)
    if page.scope == Scope.PUBLIC or not (page.encryption or page.decryption):
        return Parameters(instance=instance)
    if page.algorithm != _ALGORITHM:
        raise invalid_field_in_parameter_list(8)
    if page.key_format:
        raise invalid_field_in_parameter_list(9)
    if page.kad_format > _MAX_KAD_FORMAT:
        raise invalid_field_in_parameter_list(10)
    if len(page.key) != KEY_LENGTH:
        raise invalid_field_in_parameter_list(18)
    kads = {KadType.UNAUTHENTICATED: b"", KadType.AUTHENTICATED: b""}
    for kad in page.kads:
        limit = MAX_U_KAD if kad.type == KadType.UNAUTHENTICATED else MAX_A_KAD
        if kad.type not in kads or len(kad.data) > limit:
            raise invalid_field_in_parameter_list(20 + len(page.key))
        kads[KadType(kad.type)] = kad.data
    key = Key(
        page.key,
        kads[KadType.UNAUTHENTICATED],
        kads[KadType.AUTHENTICATED],
        page.kad_format,
    )
    return Parameters(page.encryption, page.decryption, key, page.clear_on_demount, instance)


# SECURITY PROTOCOL IN


def security_protocol_in(unit: StreamUnit, command: Command) -> bytes:
    """SECURITY PROTOCOL IN: what protocols there are, and the pages of tape data encryption."""
    cdb = SecurityProtocolIn.unpack(command.cdb)
    match cdb.protocol:
        case encryption.SECURITY_PROTOCOL_INFORMATION:
            page = _protocol_information(cdb.specific)
        case encryption.TAPE_DATA_ENCRYPTION:
            page = _encryption_page(unit, command.nexus, cdb.specific)
        case _:
            raise invalid_field_in_cdb(1)
    if not cdb.increments:
        return page[: cdb.allocation_length]
    return page.ljust(-(-len(page) // 512) * 512, b"\0")[: cdb.allocation_length * 512]


def _protocol_information(specific: int) -> bytes:
    match specific:
        case 0:  # SPC-4 7.7.1.2: six reserved bytes, a length, the protocols
            protocols = bytes(
                (encryption.SECURITY_PROTOCOL_INFORMATION, encryption.TAPE_DATA_ENCRYPTION)
            )
            return bytes(6) + len(protocols).to_bytes(2, "big") + protocols
        case 1:  # 7.7.1.3: no certificate
            return bytes(4)
        case _:
            raise invalid_field_in_cdb(2)


def _encryption_page(unit: StreamUnit, nexus: Nexus, code: int) -> bytes:
    state = unit.encryption
    match code:
        case InPage.IN_SUPPORT:
            return encryption.pack_page_codes(InPage.IN_SUPPORT, _IN_PAGES)
        case InPage.OUT_SUPPORT:
            return encryption.pack_page_codes(InPage.OUT_SUPPORT, tuple(OutPage))
        case InPage.CAPABILITIES:
            return encryption.pack_capabilities(
                _ALGORITHM,
                valid_here=unit.medium is not None,
                maximum_u_kad=MAX_U_KAD,
                maximum_a_kad=MAX_A_KAD,
                key_length=KEY_LENGTH,
            )
        case InPage.KEY_FORMATS:  # 00h, plain text, only
            return encryption.pack_page(InPage.KEY_FORMATS, b"\0")
        case InPage.MANAGEMENT_CAPABILITIES:
            # CKOD_C; PUBLIC_C, LOCAL_C and AITN_C
            return encryption.pack_page(
                InPage.MANAGEMENT_CAPABILITIES, bytes((0, 0b100, 0, 0b111)) + bytes(8)
            )
        case InPage.STATUS:
            parameters = state.parameters(nexus)
            scope = state.scope(nexus)
            key = parameters.key
            return encryption.pack_status(
                nexus_scope=scope,
                key_scope=scope,
                encryption=parameters.encryption,
                decryption=parameters.decryption,
                algorithm=_ALGORITHM if key else 0,
                key_instance=parameters.instance,
                kad_format=key.kad_format if key else 0,
                kads=_kads(key.u_kad, key.a_kad, 0, 0) if key else (),
            )
        case InPage.NEXT_BLOCK_STATUS:
            with unit.lock:
                medium = unit.require_medium()
                try:
                    return _next_block_status(unit, medium, nexus)
                except (DamagedRecord, WrongKey):  # READ will say which
                    status = BlockStatus.UNKNOWN
                    return encryption.pack_next_block_status(
                        medium.block, _CANNOT_TELL, status, 0, 0, ()
                    )
        case _:
            raise invalid_field_in_cdb(2)


def _kads(u_kad: bytes, a_kad: bytes, u_checked: int, a_checked: int) -> tuple[Kad, ...]:
    kads = (
        Kad(KadType.UNAUTHENTICATED, u_kad, u_checked),
        Kad(KadType.AUTHENTICATED, a_kad, a_checked),
    )
    return tuple(kad for kad in kads if kad.data)


def _next_block_status(unit: StreamUnit, medium: Medium, nexus: Nexus) -> bytes:
    partition, block = medium.partition, medium.block
    if medium.at_eod or partition.entry(block).type == RecordType.FILEMARK:
        status = BlockStatus.NOT_A_BLOCK
        return encryption.pack_next_block_status(block, _NO_BLOCK, status, 0, 0, ())
    stored = partition.read_entry(block, partition.entry(block))
    compression = _COMPRESSED if stored.coding & Coding.COMPRESSED else _NOT_COMPRESSED
    if not stored.coding & Coding.ENCRYPTED:
        status = BlockStatus.NOT_ENCRYPTED
        return encryption.pack_next_block_status(block, compression, status, 0, 0, ())
    envelope = Envelope.unpack(stored)
    parameters = unit.encryption.parameters(nexus)
    key = parameters.key
    readable = bool(parameters.decryption and key and key.check == envelope.check)
    checked = _KAD_NOT_CHECKED
    if readable and key:
        key.opened(stored, Place(medium.cartridge.identity.bytes, medium.number, block))
        checked = _KAD_CHECKED
    return encryption.pack_next_block_status(
        block,
        compression,
        BlockStatus.ENCRYPTED_AND_READABLE if readable else BlockStatus.ENCRYPTED_NO_KEY,
        _ALGORITHM,
        envelope.kad_format,
        _kads(envelope.u_kad, envelope.a_kad, _KAD_NOT_CHECKED, checked),
    )
