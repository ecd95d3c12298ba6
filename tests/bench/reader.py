"""Reads a disk from end to end for some seconds by our own client; prints requests a second.

libiscsi 1.19 knows no data digests, so this is the client of the rows that have them.
"""

import sys
import time

from serverfree.initiator.disk import Disk
from serverfree.initiator.urls import open_session

BLOCKS = 512  # of 512 bytes: requests of 256 KiB


def main(url: str, seconds: float) -> None:
    session, lun = open_session(url)
    with session:
        disk = Disk(session.unit(lun))
        disk._piece = BLOCKS
        requests, started = 0, time.monotonic()
        while time.monotonic() - started < seconds:
            for _ in disk.chunks(0, disk.capacity().blocks):
                requests += 1
                if time.monotonic() - started >= seconds:
                    break
        print(round(requests / (time.monotonic() - started)))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
