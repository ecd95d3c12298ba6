"""A block store over a file or block device."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.base import ReadError, Stored, StoreError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10  # linux/falloc.h
_FICLONERANGE = 0x4020940D  # linux/fs.h
_CLONE_RANGE = Struct("=qQQQ")  # struct file_clone_range: from which descriptor, offset, length, to
_BLKSSZGET, _BLKPBSZGET = 0x1268, 0x127B  # linux/fs.h: bytes of a logical, of a physical sector
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
_ZEROS = bytes(1 << 20)
_LARGEST_BLOCK = 4096


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), whose modes the standard library does not offer."""
    while _libc.fallocate(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


class FileStore:
    """A block store over an open file; `open_file_store` makes one.

    Reads to be sent come out of a shared read-only map, so a send costs no copy in this process.
    Nothing is ever stored into the map (a full disk would be SIGBUS) and nothing here looks at its
    bytes (so would be a bad sector); after `give_up_map` it is not used at all.
    """

    def __init__(self, fd: int, path: Path, size: int, *, readonly: bool, thin: bool) -> None:
        self.path = path
        self.size = size
        self.readonly = readonly
        self.slow = False
        self.granularity = max(512, os.fstatvfs(fd).f_frsize)
        self._fd = fd
        self._lost: OSError | None = None
        self._shares = True  # as far as is known
        self._map = self._mapped()
        self.can_discard = thin and (readonly or self._can_punch())

    def _mapped(self) -> memoryview | None:
        try:
            return memoryview(mmap.mmap(self._fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ))
        except (OSError, ValueError, OverflowError):
            return None  # a file system without mmap: copies do as well

    def _can_punch(self) -> bool:
        before = os.fstat(self._fd)
        try:
            # Behind the end there is nothing to lose, and nothing grows with KEEP_SIZE.
            fallocate(self._fd, _PUNCH_HOLE | KEEP_SIZE, self.size, self.granularity)
        except OSError:
            return False
        with contextlib.suppress(OSError):  # to try is no change of the file
            os.utime(self._fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        return True

    def view(self, offset: int, length: int) -> Buffer:
        """Return a window of the map, or a copy once the map is given up."""
        window = self._map
        return (
            window[offset : offset + length] if window is not None else self.pread(offset, length)
        )

    def pread(self, offset: int, length: int) -> bytes:
        """Return a copy of the bytes."""
        try:
            data = os.pread(self._fd, length, offset)
            if len(data) == length:
                return data
            parts, got = [data], len(data)
            while got < length:
                data = os.pread(self._fd, length - got, offset + got)
                if not data:
                    raise self._shorter()
                parts.append(data)
                got += len(data)
            return b"".join(parts)
        except OSError as error:
            raise ReadError(error.errno, error.strerror) from error

    def _shorter(self) -> ReadError:
        return ReadError(errno.EIO, f"{self.path} has become shorter than {self.size}")

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` into the page cache."""
        written = os.pwrite(self._fd, data, offset)
        if written == len(data):
            return
        rest = memoryview(data)
        while written < len(data):
            written += os.pwrite(self._fd, rest[written:], offset + written)

    def take(self, offset: int, data: Stored) -> None:
        """Share the bytes, or have the kernel copy them out of the other store's map.

        Measured on ext4: that takes two thirds of the time of reading and writing them, and of
        copy_file_range, which without shared extents goes through a pipe, page by page.
        """
        # The space of a full disk is its own, for writes that must not run out of it.
        if self.can_discard and self._shares:
            with data.store.shared(data.offset, data.length) as place:
                if place is not None and self._share(offset, *place, data.length):
                    return
        shift = offset - data.offset
        for at, length, has_data in data.store.extents(data.offset, data.length):
            if has_data:
                self.write(at + shift, data.store.view(at, length))
            elif self.can_discard:
                self.discard(at + shift, length)
            else:
                self.zero(at + shift, length)

    def _share(self, offset: int, descriptor: int, start: int, length: int) -> bool:
        wanted = _CLONE_RANGE.pack(descriptor, start, length, offset)
        try:
            fcntl.ioctl(self._fd, _FICLONERANGE, wanted)
        except OSError as error:
            # Not the same file system, not on its blocks, ... or it never will.
            self._shares = error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY)
            return False
        return True

    @contextmanager
    def shared(self, offset: int, length: int) -> Iterator[tuple[int, int] | None]:
        """Say where, if this file is thin: writing to what is shared takes new space."""
        yield (self._fd, offset) if self.can_discard else None

    def flush(self) -> None:
        """Put all that was written on stable storage.

        The kernel reports a failed write-back once and then forgets the pages. What it lost cannot
        be told any more, so from the first failure on every flush fails until the file is opened
        anew: no initiator takes a later success for durability of an earlier write.
        """
        if self._lost is not None:
            raise OSError(self._lost.errno, f"an earlier flush failed: {self._lost.strerror}")
        if self.readonly:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._lost = error
            raise

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole: whole file system blocks are freed, the parts at the ends are zeroed."""
        if length:
            fallocate(self._fd, _PUNCH_HOLE | KEEP_SIZE, offset, length)

    def zero(self, offset: int, length: int) -> None:
        """Zero a range by the file system's own means, or by writing where it has none."""
        if not length:
            return
        try:
            fallocate(self._fd, _ZERO_RANGE | KEEP_SIZE, offset, length)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            zeros = memoryview(_ZEROS)
            for at in range(offset, offset + length, len(zeros)):
                self.write(at, zeros[: min(len(zeros), offset + length - at)])

    def prefetch(self, offset: int, length: int) -> None:
        """Have the kernel read ahead."""
        os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)

    def evict(self, offset: int, length: int) -> None:
        """Have the kernel drop its pages, except those that the map holds on to."""
        os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the runs of data and of holes, as the file system tells them."""
        at, end = offset, offset + length
        while at < end:
            data = self._seek(at, os.SEEK_DATA, end)
            if data > at:
                yield at, min(data, end) - at, False
                at = data
                continue
            hole = min(self._seek(at, os.SEEK_HOLE, end), end)
            yield at, hole - at, True
            at = hole

    def _seek(self, offset: int, whence: int, end: int) -> int:
        # The file offset that lseek moves is used by nothing here, so threads may share it.
        try:
            return os.lseek(self._fd, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind the offset
                if os.lseek(self._fd, 0, os.SEEK_END) < self.size:
                    raise self._shorter() from error  # what has been lost is no hole
                return end
            if error.errno in _NOT_SUPPORTED:  # cannot tell holes: everything is data
                return offset if whence == os.SEEK_DATA else end
            raise ReadError(error.errno, error.strerror) from error

    def grow(self) -> bool:
        """Take in a file that was made longer, in whole blocks of the largest size there is.

        A file that was made shorter is a failing one: what is missing cannot be read.
        """
        actual = os.lseek(self._fd, 0, os.SEEK_END) & -_LARGEST_BLOCK
        if actual <= self.size:
            return False
        self.size = actual
        if self._map is not None:
            self._map = self._mapped()  # windows that are out keep the old one
        return True

    def give_up_map(self) -> None:
        """Have `view` return copies from now on: pread says EIO where the map would be fatal."""
        self._map = None

    def close(self) -> None:
        """Flush, unmap (when the last window is gone) and unlock."""
        if self._fd < 0:
            return
        try:
            if self._lost is None:
                self.flush()
        finally:
            self._map = None
            fd, self._fd = self._fd, -1
            os.close(fd)


class DeviceStore(FileStore):
    """A block store over an open block device; `open_file_store` makes one.

    The kernel zeroes and unmaps whole sectors of a device, and tells nothing of what it has
    unmapped: to `extents` all of it is data.
    """

    def __init__(self, fd: int, path: Path, size: int, *, readonly: bool, thin: bool) -> None:
        self._sector = _asked(fd, _BLKSSZGET)
        self._queue = _queue_of(fd)
        super().__init__(fd, path, size, readonly=readonly, thin=thin)
        self.granularity = max(_asked(fd, _BLKPBSZGET), self._limit("discard_granularity"), 512)

    def _limit(self, name: str) -> int:
        try:
            return int((self._queue / name).read_text())
        except (OSError, ValueError):
            return 0

    def _can_punch(self) -> bool:
        # To try would cost data here. A discard alone would not do, since nothing promises zeros
        # after it; a device that can both discard and write zeros unmaps what is punched.
        return self._limit("discard_max_bytes") > 0 and self._limit("write_zeroes_max_bytes") > 0

    def discard(self, offset: int, length: int) -> None:
        """Unmap whole sectors; the parts at the ends are zeroed."""
        super().discard(*self._zero_ends(offset, length))

    def zero(self, offset: int, length: int) -> None:
        """Zero whole sectors by the device's own means or the kernel's; the ends by writing."""
        super().zero(*self._zero_ends(offset, length))

    def _zero_ends(self, offset: int, length: int) -> tuple[int, int]:
        """Zero what is not whole sectors; return offset and length of what is."""
        sector = self._sector
        first, end = -(-offset // sector) * sector, (offset + length) // sector * sector
        if first >= end:
            self.write(offset, bytes(length))
            return offset, 0
        self.write(offset, bytes(first - offset))
        self.write(end, bytes(offset + length - end))
        return first, end - first


def _asked(fd: int, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, request, bytes(4)), sys.byteorder)


def _queue_of(fd: int) -> Path:
    """Return where the kernel tells the limits of a device: of a partition, those of its disk."""
    number = os.fstat(fd).st_rdev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    return (device.parent if (device / "partition").exists() else device) / "queue"


def open_file_store(
    path: str | Path, size: int | None = None, *, readonly: bool = False, thin: bool = False
) -> FileStore:
    """Open a file or block device as a store, or make the file if it is missing and has a `size`.

    A new file is `size` zeros; unless `thin`, its space is reserved, so that writes cannot run
    out of it later. `thin` also offers `discard`. The file is locked: one target serves it
    exclusively, or several read-only; a device to be written must have no other user on this
    machine (a file system, a volume group, ...). Raises StoreError.
    """
    path = Path(path)
    fd, created = _open(path, size, readonly=readonly)
    try:
        _lock(fd, path, readonly=readonly)
        if created:
            assert size is not None
            _allocate(fd, path, size, thin=thin)
        actual = _size(fd, path)
        if size is not None and size != actual:
            raise StoreError(
                f"{path} has {actual} bytes, not {size}: leave the size out to serve it as it is, "
                "or remove the file to have it made anew"
            )
        kind = DeviceStore if stat.S_ISBLK(os.fstat(fd).st_mode) else FileStore
        return kind(fd, path, actual, readonly=readonly, thin=thin)
    except BaseException:
        os.close(fd)
        if created:
            path.unlink(missing_ok=True)
        raise


def _open(path: Path, size: int | None, *, readonly: bool) -> tuple[int, bool]:
    flags = os.O_CLOEXEC | (os.O_RDONLY if readonly else os.O_RDWR)
    try:
        if size is not None and not readonly:
            try:
                return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
            except FileExistsError:
                pass
        if not readonly and path.is_block_device():
            flags |= os.O_EXCL  # refused while it is mounted, and not to be mounted meanwhile
        return os.open(path, flags), False
    except FileNotFoundError:
        if readonly:
            hint = "what is served read-only must be there"
        elif size is not None:
            hint = f"its folder {path.parent} is missing, make that first"
        else:
            hint = "give a size to have it made"
        raise StoreError(f"{path} does not exist: {hint}") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise StoreError(
                f"{path} is in use on this machine: unmount it, or end what else has it"
            ) from error
        hint = "" if readonly else "; a file that may only be read is served with readonly"
        raise StoreError(f"{path} cannot be opened: {error.strerror}{hint}") from error


def _lock(fd: int, path: Path, *, readonly: bool) -> None:
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if readonly else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(f"{path} is served by another target already: stop that one") from None


def _allocate(fd: int, path: Path, size: int, *, thin: bool) -> None:
    if size <= 0:
        raise StoreError(f"{path} cannot have {size} bytes: give a positive size")
    try:
        os.ftruncate(fd, size)
        if not thin:
            try:
                fallocate(fd, 0, 0, size)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
    except OSError as error:
        raise StoreError(
            f"{path} cannot be made {size} bytes long: {error.strerror}; free some space, or make "
            "it thin, which takes space as it is written"
        ) from error


def _size(fd: int, path: Path) -> int:
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise StoreError(f"{path} is neither a file nor a block device: name one that is")
    size = os.lseek(fd, 0, os.SEEK_END)
    if not size:
        raise StoreError(f"{path} is empty: remove it and give a size to have it made")
    return size
