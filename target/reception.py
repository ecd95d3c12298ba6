"""How a connection waits for its peer: awake while the peer is quick, asleep otherwise.

A host with one command in flight sends the next within microseconds of an answer, while putting a
thread to sleep and waking it takes many (on a virtual machine up to half of a small read). So for a
moment the thread asks again and again. It does so only while the peer is quick, and while no other
connection has anything to do: the others would wait for the interpreter.
"""

import socket
import time
from typing import ClassVar

from serverfree.iscsi.framing import Receiver

_LOOKS = 30  # about 40 us
_QUICK = 200e-6  # seconds between answer and next command, the time to wake up included
_ALONE = 1000  # receptions in a row without one of another connection, a tenth of a second


class Reception:
    """Takes in what arrives at a socket, for one thread."""

    _latest: ClassVar[int] = 0  # the id of one: a reference would keep it

    def __init__(self, sock: socket.socket, receiver: Receiver) -> None:
        self._socket = sock
        self._receiver = receiver
        self._id = id(self)
        self._quick = False
        self._alone = 0

    def receive(self) -> bool:
        """Wait for bytes and take them in; False at the end of the stream.

        Raises BlockingIOError if nothing comes for the time of SO_RCVTIMEO.
        """
        buffers = self._receiver.buffers()
        if len(buffers) > 1:
            count = self._socket.recvmsg_into(buffers)[0]
        elif self._quick and self._alone > _ALONE:
            count = self._look(buffers[0])
        else:
            count = self._wait(buffers[0])
        if Reception._latest == self._id:
            self._alone += 1
        else:
            Reception._latest = self._id
            self._alone = 0
        self._receiver.received(count)
        return count > 0

    def _look(self, buffer: memoryview) -> int:
        for _ in range(_LOOKS):
            try:
                return self._socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
        return self._wait(buffer)

    def _wait(self, buffer: memoryview) -> int:
        self._quick = False  # nothing may come at all
        began = time.monotonic()
        count = self._socket.recv_into(buffer)
        self._quick = time.monotonic() - began < _QUICK
        return count
