"""Sense data: the named codes, and the two formats on the wire (SPC-4 4.5)."""

from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct


class SenseKey(IntEnum):
    """SPC-4 table 27."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


class Asc(IntEnum):
    """ADDITIONAL SENSE CODE (high byte) and its QUALIFIER (low byte), by the standard's names."""

    NO_ADDITIONAL_SENSE_INFORMATION = 0x0000
    FILEMARK_DETECTED = 0x0001
    END_OF_PARTITION_MEDIUM_DETECTED = 0x0002
    BEGINNING_OF_PARTITION_MEDIUM_DETECTED = 0x0004
    END_OF_DATA_DETECTED = 0x0005
    PROGRAMMABLE_EARLY_WARNING_DETECTED = 0x0007
    OPERATION_IN_PROGRESS = 0x0016
    EXTENDED_COPY_INFORMATION_AVAILABLE = 0x0020
    PERIPHERAL_DEVICE_WRITE_FAULT = 0x0300
    LOGICAL_UNIT_NOT_READY_CAUSE_NOT_REPORTABLE = 0x0400
    LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY = 0x0401
    LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED = 0x0402
    LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS = 0x0404
    LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS = 0x0409
    LOGICAL_UNIT_NOT_ACCESSIBLE_ASYMMETRIC_ACCESS_STATE_TRANSITION = 0x040A
    LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE = 0x040B
    LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE = 0x040C
    LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS = 0x041B
    UNREACHABLE_COPY_TARGET = 0x0804
    WRITE_ERROR = 0x0C00
    UNEXPECTED_UNSOLICITED_DATA = 0x0C0C
    NOT_ENOUGH_UNSOLICITED_DATA = 0x0C0D
    THIRD_PARTY_DEVICE_FAILURE = 0x0D01
    COPY_TARGET_DEVICE_NOT_REACHABLE = 0x0D02
    INCORRECT_COPY_TARGET_DEVICE_TYPE = 0x0D03
    COPY_TARGET_DEVICE_DATA_UNDERRUN = 0x0D04
    COPY_TARGET_DEVICE_DATA_OVERRUN = 0x0D05
    LOGICAL_BLOCK_GUARD_CHECK_FAILED = 0x1001
    ORWRITE_GENERATION_DOES_NOT_MATCH = 0x1008
    UNRECOVERED_READ_ERROR = 0x1100
    DEFECT_LIST_NOT_FOUND = 0x1C00
    PARAMETER_LIST_LENGTH_ERROR = 0x1A00
    MISCOMPARE_DURING_VERIFY_OPERATION = 0x1D00
    INVALID_COMMAND_OPERATION_CODE = 0x2000
    ACCESS_DENIED_NO_ACCESS_RIGHTS = 0x2002
    ILLEGAL_COMMAND_WHEN_NOT_IN_APPEND_ONLY_MODE = 0x200C
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = 0x2100
    INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE = 0x2301
    INVALID_TOKEN_OPERATION_REMOTE_TOKEN_USAGE_NOT_SUPPORTED = 0x2302
    INVALID_TOKEN_OPERATION_REMOTE_ROD_TOKEN_CREATION_NOT_SUPPORTED = 0x2303
    INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN = 0x2304
    INVALID_TOKEN_OPERATION_TOKEN_CORRUPT = 0x2305
    INVALID_TOKEN_OPERATION_TOKEN_EXPIRED = 0x2307
    INVALID_TOKEN_OPERATION_TOKEN_CANCELLED = 0x2308
    INVALID_TOKEN_OPERATION_TOKEN_DELETED = 0x2309
    INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH = 0x230A
    INVALID_FIELD_IN_CDB = 0x2400
    LOGICAL_UNIT_NOT_SUPPORTED = 0x2500
    INVALID_FIELD_IN_PARAMETER_LIST = 0x2600
    PARAMETER_NOT_SUPPORTED = 0x2601
    PARAMETER_VALUE_INVALID = 0x2602
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x2604
    TOO_MANY_TARGET_DESCRIPTORS = 0x2606
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE = 0x2607
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x2608
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE = 0x2609
    UNEXPECTED_INEXACT_SEGMENT = 0x260A
    INLINE_DATA_LENGTH_EXCEEDED = 0x260B
    INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION = 0x260C
    COPY_SEGMENT_GRANULARITY_VIOLATION = 0x260D
    WRITE_PROTECTED = 0x2700
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x2707
    NOT_READY_TO_READY_CHANGE = 0x2800
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = 0x2900
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x2903
    I_T_NEXUS_LOSS_OCCURRED = 0x2907
    MODE_PARAMETERS_CHANGED = 0x2A01
    LOG_PARAMETERS_CHANGED = 0x2A02
    RESERVATIONS_PREEMPTED = 0x2A03
    RESERVATIONS_RELEASED = 0x2A04
    REGISTRATIONS_PREEMPTED = 0x2A05
    ASYMMETRIC_ACCESS_STATE_CHANGED = 0x2A06
    CAPACITY_DATA_HAS_CHANGED = 0x2A09
    TIMESTAMP_CHANGED = 0x2A10
    DATA_ENCRYPTION_PARAMETERS_CHANGED_BY_ANOTHER_I_T_NEXUS = 0x2A11
    COPY_CANNOT_EXECUTE = 0x2B00
    COMMAND_SEQUENCE_ERROR = 0x2C00
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2F00
    COMMANDS_CLEARED_BY_DEVICE_SERVER = 0x2F02
    INCOMPATIBLE_MEDIUM_INSTALLED = 0x3000
    CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT = 0x3005
    WORM_MEDIUM_OVERWRITE_ATTEMPTED = 0x300C
    MEDIUM_FORMAT_CORRUPTED = 0x3100
    FORMAT_COMMAND_FAILED = 0x3101
    SANITIZE_COMMAND_FAILED = 0x3103
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900
    MEDIUM_NOT_PRESENT = 0x3A00
    MEDIUM_NOT_PRESENT_MEDIUM_AUXILIARY_MEMORY_ACCESSIBLE = 0x3A04
    SEQUENTIAL_POSITIONING_ERROR = 0x3B00
    POSITION_PAST_BEGINNING_OF_MEDIUM = 0x3B0C
    LOGICAL_UNIT_FAILED_SELF_TEST = 0x3E03
    INQUIRY_DATA_HAS_CHANGED = 0x3F03
    DEVICE_IDENTIFIER_CHANGED = 0x3F05
    REPORTED_LUNS_DATA_HAS_CHANGED = 0x3F0E
    ECHO_BUFFER_OVERWRITTEN = 0x3F0F
    MEDIUM_AUXILIARY_MEMORY_ACCESSIBLE = 0x3F11
    INTERNAL_TARGET_FAILURE = 0x4400
    PROTOCOL_SERVICE_CRC_ERROR = 0x4705
    INVALID_MESSAGE_ERROR = 0x4900
    DATA_PHASE_ERROR = 0x4B00
    MEDIA_LOAD_OR_EJECT_FAILED = 0x5300
    MEDIUM_REMOVAL_PREVENTED = 0x5302
    INSUFFICIENT_RESOURCES = 0x5503
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504
    INSUFFICIENT_RESOURCES_TO_CREATE_ROD = 0x550C
    INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN = 0x550D
    OPERATOR_SELECTED_WRITE_PROTECT = 0x5A02
    SET_TARGET_PORT_GROUPS_COMMAND_FAILED = 0x670A
    UNABLE_TO_DECRYPT_DATA = 0x7401
    UNENCRYPTED_DATA_ENCOUNTERED_WHILE_DECRYPTING = 0x7402
    INCORRECT_DATA_ENCRYPTION_KEY = 0x7403
    CRYPTOGRAPHIC_INTEGRITY_VALIDATION_FAILED = 0x7404

    @property
    def text(self) -> str:
        """The standard's words, lower case."""
        return self.name.replace("_", " ").lower()


@dataclass(frozen=True, slots=True)
class FieldPointer:
    """SENSE KEY SPECIFIC of ILLEGAL REQUEST (4.5.2.4.2) and COPY ABORTED (4.5.2.4.5).

    `byte` counts from the start of the CDB (`in_cdb`), of the parameter list, or, with
    `in_segment` (COPY ABORTED only, the SD bit), of the segment descriptor. `bit` is the leftmost
    bit in error, None for the whole byte.
    """

    byte: int
    bit: int | None = None
    in_cdb: bool = False
    in_segment: bool = False


_FIXED = Struct(">BBBIBIBBB3s")  # 18 bytes, 4.5.3
_FIXED_LENGTH = _FIXED.size
_MAX_SENSE = 252
_COUNT_SEGMENTS = (SenseKey.COPY_ABORTED, SenseKey.COMPLETED)  # segment 0 is one (5.17.7.4 b)
_FSDT = 0x80  # of a forwarded sense descriptor: it was cut (SPC-4 4.5.2.7)


@dataclass(slots=True)
class Sense:
    """Sense data of either format.

    `asc` is an `Asc`, or a plain int where a peer sent a code that has no name here.
    `information` None means VALID=0; a negative value is sent as two's complement (a tape block
    longer than asked for). `command_specific` is the 4-byte field. `forwarded` holds the areas
    that a copy manager appends (5.17.7.4 d, e): raw status byte and sense of source and
    destination; `pack` computes their offsets into COMMAND-SPECIFIC INFORMATION. `progress` is the
    PROGRESS INDICATION of NO SENSE and NOT READY, in 65,536ths. With `descriptor_format` (D_SENSE
    of the control mode page) `pack` makes descriptor format.
    """

    key: SenseKey
    asc: Asc | int = Asc.NO_ADDITIONAL_SENSE_INFORMATION
    information: int | None = None
    filemark: bool = False
    eom: bool = False
    ili: bool = False
    deferred: bool = False
    command_specific: int = 0
    pointer: FieldPointer | None = None
    forwarded_source: bytes = b""
    forwarded_destination: bytes = b""
    progress: int | None = None
    descriptor_format: bool = field(default=False, compare=False)
    raw: bytes = field(default=b"", compare=False)

    def __str__(self) -> str:
        name = self.asc.text if isinstance(self.asc, Asc) else "vendor specific or unknown"
        bits = "".join(
            f", {word}"
            for word, on in (("filemark", self.filemark), ("EOM", self.eom), ("ILI", self.ili))
            if on
        )
        information = "" if self.information is None else f", information {self.information}"
        return (
            f"{self.key.name} {self.asc >> 8:02X}/{self.asc & 0xFF:02X} {name}{bits}{information}"
        )

    def pack(self) -> bytes:
        """Fixed format (4.5.3), 18 bytes and the forwarded areas behind them.

        An INFORMATION that does not fit its four bytes is left out, as 4.5.3 asks.
        """
        if self.descriptor_format:
            return self.pack_descriptors()
        information = self.information
        if information is not None and information > 0xFFFFFFFF:
            information = None
        command_specific = self.command_specific
        tail = b""
        if self.forwarded_source:
            command_specific |= (_FIXED_LENGTH + len(tail)) << 24
            tail += self.forwarded_source
        if self.forwarded_destination:
            command_specific |= (_FIXED_LENGTH + len(tail)) << 16
            tail += self.forwarded_destination
        tail = tail[: _MAX_SENSE - _FIXED_LENGTH]
        return (
            _FIXED.pack(
                (0x80 if information is not None else 0) | (0x71 if self.deferred else 0x70),
                0,
                self.filemark << 7 | self.eom << 6 | self.ili << 5 | self.key,
                (information or 0) & 0xFFFFFFFF,
                _FIXED_LENGTH - 8 + len(tail),
                command_specific,
                self.asc >> 8,
                self.asc & 0xFF,
                0,
                self._pack_pointer(),
            )
            + tail
        )

    def pack_descriptors(self) -> bytes:
        """Descriptor format (4.5.2), with those descriptors that have something to say."""
        descriptors = b""
        if self.information is not None:
            information = self.information & 0xFFFFFFFF_FFFFFFFF
            descriptors += b"\x00\x0a\x80\x00" + information.to_bytes(8, "big")
        if self.command_specific or self.key in _COUNT_SEGMENTS:
            descriptors += b"\x01\x0a\x00\x00" + self.command_specific.to_bytes(8, "big")
        if self.pointer is not None or self.progress is not None:
            descriptors += b"\x02\x06\x00\x00" + self._pack_pointer() + b"\x00"
        if self.filemark or self.eom or self.ili:
            flags = self.filemark << 7 | self.eom << 6 | self.ili << 5
            descriptors += b"\x04\x02\x00" + bytes((flags,))
        for source, area in ((1, self.forwarded_source), (2, self.forwarded_destination)):
            room = _MAX_SENSE - 8 - len(descriptors) - 3
            if area and room > 0:
                cut = _FSDT if len(area) > room else 0
                area = area[:room]
                descriptors += bytes((0x0C, len(area) + 1, cut | source)) + area
        return (
            bytes((0x73 if self.deferred else 0x72, self.key, self.asc >> 8, self.asc & 0xFF))
            + bytes(3)
            + bytes((len(descriptors),))
            + descriptors
        )

    def _pack_pointer(self) -> bytes:
        if self.progress is not None:
            return b"\x80" + self.progress.to_bytes(2, "big")
        pointer = self.pointer
        if pointer is None:
            return bytes(3)
        flags = 0x80 | (0 if pointer.bit is None else 0x08 | pointer.bit)
        if self.key is SenseKey.COPY_ABORTED:
            flags |= pointer.in_segment << 5
        else:
            flags |= pointer.in_cdb << 6
        return bytes((flags,)) + pointer.byte.to_bytes(2, "big")

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> "Sense":
        """Read fixed or descriptor format; what is missing reads as zero. Never raises."""
        raw = bytes(data)
        code = raw[0] & 0x7F if raw else 0x70
        sense = _unpack_descriptors(raw) if code in (0x72, 0x73) else _unpack_fixed(raw)
        sense.deferred = code in (0x71, 0x73)
        sense.raw = raw
        return sense


def _asc(code: int) -> Asc | int:
    try:
        return Asc(code)
    except ValueError:
        return code


def _key(code: int) -> SenseKey:
    try:
        return SenseKey(code & 0x0F)
    except ValueError:
        return SenseKey.VENDOR_SPECIFIC


def _pointer(key: SenseKey, specific: bytes) -> FieldPointer | None:
    flags = specific[0]
    if not flags & 0x80 or key not in (SenseKey.ILLEGAL_REQUEST, SenseKey.COPY_ABORTED):
        return None
    copy = key is SenseKey.COPY_ABORTED
    return FieldPointer(
        byte=int.from_bytes(specific[1:3], "big"),
        bit=flags & 0x07 if flags & 0x08 else None,
        in_cdb=not copy and bool(flags & 0x40),
        in_segment=copy and bool(flags & 0x20),
    )


def _progress(key: SenseKey, specific: bytes) -> int | None:
    if not specific[0] & 0x80 or key not in (SenseKey.NO_SENSE, SenseKey.NOT_READY):
        return None
    return int.from_bytes(specific[1:3], "big")


def _unpack_fixed(raw: bytes) -> Sense:
    padded = raw[:_FIXED_LENGTH].ljust(_FIXED_LENGTH, b"\0")
    code, _, flags, information, _, command_specific, asc, ascq, _, specific = _FIXED.unpack(padded)
    key = _key(flags)
    source, destination = command_specific >> 24, command_specific >> 16 & 0xFF
    areas = {"forwarded_source": b"", "forwarded_destination": b""}
    if key is SenseKey.COPY_ABORTED:
        # Each area runs to the start of the other, or to the end.
        if _FIXED_LENGTH <= source < len(raw):
            areas["forwarded_source"] = raw[source : destination if destination > source else None]
        if _FIXED_LENGTH <= destination < len(raw):
            areas["forwarded_destination"] = raw[
                destination : source if source > destination else None
            ]
        command_specific &= 0xFFFF
    signed = information - (1 << 32) if information >> 31 else information
    return Sense(
        key=key,
        asc=_asc(asc << 8 | ascq),
        information=signed if code & 0x80 else None,
        filemark=bool(flags & 0x80),
        eom=bool(flags & 0x40),
        ili=bool(flags & 0x20),
        command_specific=command_specific,
        pointer=_pointer(key, specific),
        progress=_progress(key, specific),
        forwarded_source=areas["forwarded_source"],
        forwarded_destination=areas["forwarded_destination"],
    )


def _unpack_descriptors(raw: bytes) -> Sense:
    padded = raw.ljust(8, b"\0")
    sense = Sense(key=_key(padded[1]), asc=_asc(padded[2] << 8 | padded[3]))
    at = 8
    while at + 2 <= len(raw):
        kind, length = raw[at], raw[at + 1]
        body = raw[at + 2 : at + 2 + length]
        at += 2 + length
        if kind == 0x00 and len(body) >= 10:  # information, 4.5.2.2
            value = int.from_bytes(body[2:10], "big")
            sense.information = value - (1 << 64) if value >> 63 else value
        elif kind == 0x01 and len(body) >= 10:  # command-specific information, 4.5.2.3
            sense.command_specific = int.from_bytes(body[2:10], "big")
        elif kind == 0x02 and len(body) >= 5:  # sense key specific, 4.5.2.4
            sense.pointer = _pointer(sense.key, body[2:5])
            sense.progress = _progress(sense.key, body[2:5])
        elif kind == 0x04 and len(body) >= 2:  # stream commands, SSC-4
            sense.filemark = bool(body[1] & 0x80)
            sense.eom = bool(body[1] & 0x40)
            sense.ili = bool(body[1] & 0x20)
        elif kind == 0x05 and len(body) >= 2:  # block commands, SBC-3
            sense.ili = bool(body[1] & 0x20)
        elif kind == 0x0C and len(body) >= 2:  # forwarded sense, 4.5.2.7
            area = body[1:]
            if body[0] & 0x0F == 1:
                sense.forwarded_source = area
            else:
                sense.forwarded_destination = area
    return sense
