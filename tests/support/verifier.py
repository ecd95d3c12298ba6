"""A session that goes on with verified I/O while another one misbehaves."""

import random
import struct
import threading

from support.wire import WireClient

MiB = 1 << 20


class Verifier(threading.Thread):
    """Writes and reads back its own disk until told to stop; every round must agree.

    The disk has 32 MiB at least.
    """

    BLOCKS = 32 * MiB // 512

    def __init__(self, address: tuple[str, int], target_name: str, lun: int) -> None:
        super().__init__(daemon=True)
        self.address, self.target_name, self.lun = address, target_name, lun
        self.done = threading.Event()
        self.rounds = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with WireClient(self.address, self.target_name) as client:
                client.command(bytes(6), lun=self.lun)  # takes the power-on unit attention
                draw = random.Random(1)
                while not self.done.is_set():
                    self._round(client, draw)
                client.logout()
        except Exception as error:
            self.failure = error

    def _round(self, client: WireClient, draw: random.Random) -> None:
        blocks = draw.choice((1, 8, 128, 512))
        lba = draw.randrange(self.BLOCKS - blocks)
        data = draw.randbytes(blocks * 512)
        where = struct.pack(">IBHB", lba, 0, blocks, 0)
        written = client.command(b"\x2a\0" + where, lun=self.lun, data_out=data)
        assert written.status == 0, written
        read = client.command(b"\x28\0" + where, lun=self.lun, data_in=len(data))
        assert read.status == 0, read
        assert read.data == data
        self.rounds += 1
