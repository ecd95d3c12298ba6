# title: ioctl by ioctl, the kernel's tape driver agrees: positions, counts and exact errno
# peers: kernel mt-st
# target backup: tape t0 capacity=16MiB; tape small capacity=2MiB
# timeout: 300

login backup
cat >suite.py <<'PYTHON'
"""MTIOCTOP, MTIOCGET and MTIOCPOS of Linux st, each answer held to what the tape really holds."""

import errno
import fcntl
import os
import struct
import sys

TOP, GET, POS = 0x40086D01, 0x80306D02, 0x80086D03
FSF, BSF, FSR, BSR, WEOF, REW, OFFL, BSFM, EOM, ERASE = 1, 2, 3, 4, 5, 6, 7, 10, 12, 13
SETBLK, SEEK, DRVBUFFER, LOAD, COMPRESSION, SETPART, MKPART = 20, 22, 24, 30, 32, 33, 34
SET, CLEAR = 0x30000000, 0x40000000
CAN_PARTITIONS, BUFFERED, ASYNC = 0x400, 1, 2
EOF, BOT, EOT, EOD, ONLINE, DOOR_OPEN = 0x80000000, 0x40000000, 0x20000000, 0x08000000, 0x01000000, 0x00040000


class Tape:
    def __init__(self, path, flags=os.O_RDWR):
        self.path = path
        self.fd = os.open(path, flags)

    def __call__(self, op, count=1):
        fcntl.ioctl(self.fd, TOP, struct.pack("hi", op, count))

    def get(self):
        """File, block, status bits, partition."""
        _, partition, _, status, _, file, block = struct.unpack(
            "lllllii", fcntl.ioctl(self.fd, GET, bytes(48))
        )
        return file, block, status & 0xFFFFFFFF, partition

    @property
    def at(self):
        return self.get()[:2]

    @property
    def tell(self):
        return struct.unpack("l", fcntl.ioctl(self.fd, POS, bytes(8)))[0]

    def read(self, size=65536):
        return os.read(self.fd, size)

    def write(self, data):
        return os.write(self.fd, data)

    def reopen(self, flags=os.O_RDWR):
        os.close(self.fd)
        self.fd = os.open(self.path, flags)


def same(what, expected, actual):
    if expected != actual:
        print(f"not ok - {what}: expected {expected!r}, got {actual!r}")
        sys.exit(1)
    print(f"ok - {what}: {actual!r}"[:150], flush=True)


def fails(what, code, act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        same(what, errno.errorcode[code], errno.errorcode[error.errno])
    else:
        same(what, errno.errorcode[code], "success")


def bits(what, tape, expected):
    same(what, expected, tape.get()[2] & (EOF | BOT | EOD | EOT))


tape = Tape(sys.argv[1])
tape(DRVBUFFER, CLEAR | BUFFERED | ASYNC)  # every write is answered by the drive itself
tape(SETBLK, 0)
tape(REW)
bits("at the beginning", tape, BOT)
for n in range(1, 6):
    tape.write(bytes((n,)) * 1000 * n)
same("after five blocks", (0, 5), tape.at)
tape(WEOF)
same("after a mark", (1, 0), tape.at)
bits("status there", tape, EOF)
for n in range(1, 4):
    tape.write(bytes((n,)) * 100)
tape(WEOF, 2)
same("after three blocks and two marks", (3, 0), tape.at)
same("MTIOCPOS counts marks too", 11, tape.tell)

tape(REW)
same("a block shorter than asked for", b"\1" * 1000, tape.read())
same("position behind it", (0, 1), tape.at)
fails("a block longer than the buffer", errno.ENOMEM, tape.read, 100)
same("position behind that", (0, 2), tape.at)
tape(FSR, 3)
same("FSR 3", (0, 5), tape.at)
fails("FSR over a mark", errno.EIO, tape, FSR)
same("is stopped behind it", (1, 0), tape.at)
fails("BSR over it", errno.EIO, tape, BSR)
same("is stopped before it", 5, tape.tell)
tape(REW)
for _ in range(5):
    tape.read()
same("a mark reads as nothing", b"", tape.read())
same("and the next file begins", b"\1" * 100, tape.read())
same("position in it", (1, 1), tape.at)
tape.read(), tape.read()
same("its mark", b"", tape.read())
same("the mark after it", b"", tape.read())
same("end of data behind a mark reads as nothing once", b"", tape.read())
fails("then as an error", errno.EIO, tape.read)

tape(REW)
tape(FSF, 2)
same("FSF 2", (2, 0), tape.at)
fails("FSF past the last mark", errno.EIO, tape, FSF, 5)
tape(EOM)
same("EOM knows the file, and that it does not know the block", (3, -1), tape.at)
bits("status at the end of data", tape, EOD)
tape(BSF)
same("BSF stands before the mark", 10, tape.tell)
tape(BSFM)
same("BSFM behind the one before", 10, tape.tell)
tape(REW)
fails("BSR before the beginning", errno.EIO, tape, BSR)
same("is at the beginning", 0, tape.tell)
fails("BSF before the beginning", errno.EIO, tape, BSF)
tape(SEEK, 6)
same("SEEK to the second file", b"\1" * 100, tape.read())
fails("SEEK past the end of data", errno.EIO, tape, SEEK, 1000)
tape(REW)

tape(SETBLK, 512)
fails("a write that is no whole number of blocks", errno.EINVAL, tape.write, bytes(1000))
tape.write(os.urandom(5120))
same("ten fixed blocks", (0, 10), tape.at)
tape(SETBLK, 0)
tape(REW)
same("one of them", 512, len(tape.read()))
tape(ERASE)
tape(REW)
tape(EOM)
same("ERASE left one block", 1, tape.tell)
tape(COMPRESSION, 1)
tape.write(bytes(100_000))
tape(COMPRESSION, 0)

tape(DRVBUFFER, SET | CAN_PARTITIONS)
tape(REW)
tape(MKPART, 4)
same("the drive is in partition 0", (0, 0, 0), (*tape.at, tape.get()[3]))
tape.write(b"first")
tape(SETPART, 1)
tape.write(b"second")
same("the driver is in partition 1", 1, tape.get()[3])
fails("a partition that is not there", errno.EINVAL, tape, SETPART, 2)
tape(SETPART, 0)
tape(REW)
same("data of partition 0", b"first", tape.read())
tape(SETPART, 1)
tape(REW)
same("data of partition 1", b"second", tape.read())
tape(SETPART, 0)
tape(REW)
tape(MKPART, 0)
fails("one partition again", errno.EINVAL, tape, SETPART, 1)
tape(DRVBUFFER, CLEAR | CAN_PARTITIONS)

tape(OFFL)
tape.reopen(os.O_RDWR | os.O_NONBLOCK)
same("an open drive", DOOR_OPEN, tape.get()[2] & (ONLINE | DOOR_OPEN))
fails("a read of it", errno.ENOMEDIUM, tape.read)
tape(LOAD)
tape.reopen()
same("loaded again, at its beginning", 0, tape.tell)
os.close(tape.fd)

small = Tape(sys.argv[2])
small(DRVBUFFER, CLEAR | BUFFERED | ASYNC)
small(SETBLK, 0)
small(REW)
written, refused, in_a_row = 0, 0, 0
while in_a_row < 3:
    try:
        small.write(written.to_bytes(4, "big") * 4096)
        written, in_a_row = written + 1, 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            same("what a full tape says", "ENOSPC", errno.errorcode[error.errno])
        refused, in_a_row = refused + 1, in_a_row + 1
same("blocks that the early-warning zone still took", True, refused > 4)
same("blocks counted by the driver", written, small.at[1])
small(REW)
back = 0
while data := small.read():
    if data != back.to_bytes(4, "big") * 4096:
        same("block", back, data[:4])
    back += 1
    if back == written:
        break
same("every block that was taken is there, and none else", written, back)
small(EOM)
same("end of data behind them and the mark that the driver wrote", written + 1, small.tell)
PYTHON
python3 suite.py "$(tape backup t0)" "$(tape backup small)"
