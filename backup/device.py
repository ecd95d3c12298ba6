"""What can be read at an offset: a disk over iSCSI, an image file, a part of either."""

from typing import Protocol

from serverfree.initiator.disk import Disk


class Device(Protocol):
    """Bytes by offset. Reading past the end gives ValueError; failures are OSError or ScsiError."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def block_length(self) -> int:
        """Bytes of a block: the unit of addresses on the wire."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from any offset."""


class FileDevice:
    """An image file or block device of this machine. Closed by `close` or as a context manager."""

    def __init__(self, path: str, block_length: int = 512) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115 - unbuffered, kept open
        self.size = self._file.seek(0, 2)
        self.block_length = block_length

    def read_at(self, offset: int, length: int) -> bytes:
        """See Device."""
        _check(self, offset, length)
        self._file.seek(offset)
        parts, got = [], 0
        while got < length:
            part = self._file.read(length - got)
            if not part:
                raise OSError(f"{self._file.name} has become shorter")
            parts.append(part)
            got += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> "FileDevice":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DiskDevice:
    """A disk over iSCSI. `read` counts what of its content has come to this machine."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        capacity = disk.capacity()
        self.size, self.block_length = capacity.size, capacity.block_length
        self.read = 0

    def read_at(self, offset: int, length: int) -> bytes:
        """See Device. Blocks are read whole, in pieces that the disk takes, several at once."""
        _check(self, offset, length)
        if not length:
            return b""
        first, skip = divmod(offset, self.block_length)
        blocks = -(-(skip + length) // self.block_length)
        self.read += blocks * self.block_length
        data = self.disk.read(first, blocks)
        return data if len(data) == length else data[skip : skip + length]


class Part:
    """A range of another device, such as a partition."""

    def __init__(self, device: Device, start: int, size: int) -> None:
        self.device, self.start, self.size = device, start, size
        self.block_length = device.block_length

    def read_at(self, offset: int, length: int) -> bytes:
        """See Device."""
        _check(self, offset, length)
        return self.device.read_at(self.start + offset, length)


def _check(device: Device, offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > device.size:
        raise ValueError(f"bytes {offset} to {offset + length} of a device of {device.size}")
