"""Waiting for a peer: what comes is taken in, and only a quick and lonely peer is watched for."""

import socket
import struct

import pytest

from serverfree.iscsi.framing import Receiver
from serverfree.target import reception
from serverfree.target.reception import Reception

TIMEOUT = struct.pack("ll", 0, 20_000)


class Watched:
    """A socket that notes how it was asked; `misses` looks in a row find nothing."""

    def __init__(self, misses: int = 0) -> None:
        self.asked: list[int] = []
        self.misses = misses

    def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0) -> int:
        self.asked.append(flags)
        if flags and self.misses:
            self.misses -= 1
            raise BlockingIOError
        buffer[0] = 0
        return 1


@pytest.fixture
def receptions():
    def make(sock: object) -> Reception:
        return Reception(sock, Receiver(8192))  # type: ignore[arg-type]

    return make


def settle(one: Reception) -> None:
    """Make it the only one with anything to do."""
    for _ in range(reception._ALONE + 3):
        one.receive()


def test_a_peer_that_is_quick_and_alone_is_watched_for(receptions):
    sock = Watched()
    settle(receptions(sock))
    assert sock.asked[-1] == socket.MSG_DONTWAIT
    assert sock.asked[0] == 0


def test_a_peer_that_keeps_us_waiting_is_slept_for(receptions):
    sock = Watched()
    one = receptions(sock)
    settle(one)
    sock.asked.clear()
    sock.misses = 10 * reception._LOOKS
    one.receive()
    assert sock.asked == [socket.MSG_DONTWAIT] * reception._LOOKS + [0]


def test_nobody_is_watched_for_while_others_have_something_to_do(receptions):
    first, second = Watched(), Watched()
    ones = receptions(first), receptions(second)
    for _ in range(2 * reception._ALONE):
        for one in ones:
            one.receive()
    assert not any(first.asked + second.asked)


def test_silence_and_the_end_of_the_stream_are_told_apart(receptions):
    here, there = socket.socketpair()
    with here, there:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEOUT)
        one = receptions(here)
        with pytest.raises(BlockingIOError):
            one.receive()
        there.sendall(b"x")
        assert one.receive()
        there.close()
        assert not one.receive()
