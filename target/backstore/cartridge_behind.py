"""Write-behind: the medium is written while more is still coming, as a drive's buffer is.

Left to itself the kernel keeps what is written in memory until a filemark asks for all of it at
once. Here each stretch of the log is given to the device as soon as the records have gone past it,
so that the flush finds little left. Nothing is promised by that: what lasts is what `sync` says,
and an error of the device stays where the flush finds it (sync_file_range(2) takes note of errors
only where it waits, which it is never asked to).
"""

import ctypes
from queue import SimpleQueue
from threading import Thread

_libc = ctypes.CDLL(None)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_START_WRITING = 0x02  # SYNC_FILE_RANGE_WRITE of linux/fs.h
_STRETCH = 8 << 20
_PAGE = 4096


class WriteBehind:
    """Starts the writing of a file's pages behind where it grows, on a thread of its own.

    The thread is there from the first whole stretch on, since a busy device makes the call wait,
    and whoever writes shall not. While it waits nothing more is given to it: the next stretch is as
    long as what has come together meanwhile.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = self._end = 0
        self._busy = False
        self._stretches: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def written(self, offset: int, length: int) -> None:
        """The file has been written here."""
        begun = self._begun if offset == self._end else offset & -_PAGE
        # The last page will be written to again: to have the device write it twice is a waste.
        self._end = offset + length
        whole = (self._end & -_PAGE) - begun
        if whole < _STRETCH or self._busy:
            self._begun = begun
            return
        self._begun = begun + whole
        self._busy = True
        if self._thread is None:
            self._thread = Thread(target=self._work, name="write-behind", daemon=True)
            self._thread.start()
        self._stretches.put((begun, whole))

    def _work(self) -> None:
        while stretch := self._stretches.get():
            _libc.sync_file_range(self._fd, *stretch, _START_WRITING)
            self._busy = False

    def close(self) -> None:
        """Return when the file is not used any more."""
        if self._thread is not None:
            self._stretches.put(None)
            self._thread.join()
