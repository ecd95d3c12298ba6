"""libiscsi's raw CDB interface, by ctypes: an initiator that no one here wrote, for any command."""

import ctypes
import ctypes.util
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import pytest

from support.peers import in_ci

_LIBRARY = "libiscsi.so.7"  # Debian: libiscsi7, 1.19; the layout of a task is of this version
_NORMAL_SESSION, _NO_DIGEST = 2, 0
_NONE, _READ, _WRITE = 0, 1, 2


class _Task(ctypes.Structure):
    """The beginning of struct scsi_task."""

    _fields_ = (
        ("status", ctypes.c_int),
        ("cdb_size", ctypes.c_int),
        ("xfer_dir", ctypes.c_int),
        ("expxferlen", ctypes.c_int),
        ("cdb", ctypes.c_ubyte * 16),
        ("residual_status", ctypes.c_int),
        ("residual", ctypes.c_size_t),
        ("error_type", ctypes.c_ubyte),
        ("key", ctypes.c_int),
        ("ascq", ctypes.c_int),
        ("bits", ctypes.c_ubyte),
        ("bit_pointer", ctypes.c_ubyte),
        ("field_pointer", ctypes.c_uint16),
        ("datain_size", ctypes.c_int),
        ("datain", ctypes.c_void_p),
    )


class _Data(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("data", ctypes.c_void_p))


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        reason = f"missing on this machine: {_LIBRARY} (Debian: libiscsi7)"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)
    for name in ("iscsi_create_context", "scsi_create_task", "iscsi_scsi_command_sync"):
        getattr(library, name).restype = ctypes.c_void_p
    library.iscsi_get_error.restype = ctypes.c_char_p
    return library


@dataclass(frozen=True)
class Answer:
    """What came back: raw sense data, what was read, and how much less was moved than announced."""

    status: int
    sense: bytes
    data: bytes
    residual: int

    @property
    def key(self) -> int:
        """The sense key."""
        return self.sense[2] & 0x0F

    @property
    def code(self) -> int:
        """ASC and ASCQ as one number."""
        return int.from_bytes(self.sense[12:14], "big")

    @property
    def flags(self) -> str:
        """Which of FILEMARK, EOM and ILI are set: `f`, `e`, `i`."""
        return "".join(
            letter for letter, bit in (("f", 7), ("e", 6), ("i", 5)) if self.sense[2] >> bit & 1
        )

    @property
    def information(self) -> int | None:
        """INFORMATION as a signed number, None unless VALID."""
        if not self.sense[0] & 0x80:
            return None
        return int.from_bytes(self.sense[3:7], "big", signed=True)


class Session:
    """A session of libiscsi with one unit."""

    def __init__(self, url: str, name: str = "iqn.2026-11.com.example:libiscsi") -> None:
        self._library = _library()
        place = urlsplit(url)
        _, target, lun = place.path.split("/")
        self._lun = int(lun)
        self._context = ctypes.c_void_p(self._library.iscsi_create_context(name.encode()))
        self._library.iscsi_set_targetname(self._context, target.encode())
        self._library.iscsi_set_session_type(self._context, _NORMAL_SESSION)
        self._library.iscsi_set_header_digest(self._context, _NO_DIGEST)
        if self._library.iscsi_full_connect_sync(self._context, place.netloc.encode(), self._lun):
            raise ConnectionError(self._library.iscsi_get_error(self._context).decode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.iscsi_logout_sync(self._context)
        self._library.iscsi_destroy_context(self._context)

    def __call__(self, cdb: bytes, data: bytes = b"", *, read: int = 0) -> Answer:
        """Run a command that brings `data`, or may take `read` bytes."""
        way = _WRITE if data else _READ if read else _NONE
        length = len(data) or read
        raw = (ctypes.c_ubyte * len(cdb)).from_buffer_copy(cdb)
        task = self._library.scsi_create_task(len(cdb), raw, way, length)
        handle = ctypes.c_void_p(task)
        buffer = ctypes.create_string_buffer(data, length) if length else None
        out = _Data(len(data), ctypes.addressof(buffer)) if data and buffer is not None else None
        if read:
            self._library.scsi_task_add_data_in_buffer(handle, read, buffer)
        done = self._library.iscsi_scsi_command_sync(
            self._context, self._lun, handle, ctypes.byref(out) if out is not None else None
        )
        if not done:
            raise ConnectionError(self._library.iscsi_get_error(self._context).decode())
        try:
            found = _Task.from_address(task)
            sense = b""
            if found.status == 2 and found.datain:  # CHECK CONDITION: sense, its length in front
                sense = ctypes.string_at(found.datain + 2, found.datain_size - 2)
            residual = found.residual if found.residual_status == 1 else 0
            got = buffer.raw[: read - residual] if read and buffer is not None else b""
            return Answer(found.status, sense, got, residual)
        finally:
            self._library.scsi_free_scsi_task(handle)

    def manage(self, function: int) -> int:
        """Ask for a task management function that concerns the unit; return 0 if it was done."""
        anything = ctypes.c_uint32(0xFFFFFFFF), ctypes.c_uint32(0)
        return self._library.iscsi_task_mgmt_sync(self._context, self._lun, function, *anything)
