"""QEMU's block layer (through libiscsi) as the host of our disks."""

import subprocess

import pytest

from support import peers, servers
from support.relay import Relay

pytestmark = [pytest.mark.peer, pytest.mark.timeout(300)]

MiB = 1 << 20
EXTENDED_COPY = 0x83
WRITE_COMMANDS = (0x2A, 0xAA, 0x8A)


def run(program: str, *arguments: object) -> str:
    peers.require(program, "qemu-img's iscsi driver")
    command = [program, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_in(image, url: str, *options: str) -> None:
    """Write an image onto a LUN that exists already (-n)."""
    run("qemu-img", "convert", "-n", *options, "-f", "raw", "-O", "raw", image, url)


def compare(image, url: str) -> None:
    """Raises unless the LUN begins with the image and holds zeros behind it."""
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, url)


@pytest.fixture(scope="module")
def image(folder):
    return servers.random_file(folder / "random.img", 256 * MiB)


def test_a_random_image_goes_in_and_comes_out_the_same(storage, image, folder):
    url = storage["one"].url
    copy_in(image, url)
    compare(image, url)
    out = folder / "out.img"
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", url, out)
    with image.open("rb") as expected, out.open("rb") as found:
        for _ in range(256):
            assert found.read(MiB) == expected.read(MiB)
        assert not found.read().strip(b"\0")


@pytest.mark.parametrize("cache", ["none", "writeback", "writethrough"])
def test_flushed_writes_read_back(storage, cache):
    """Odd offsets and lengths: QEMU turns them into whole blocks by reading around them."""
    url = storage["two"].url
    writes = [(0, 512, 0x11), (4096 * 3 + 512, 65536, 0x22), (77 * MiB, 3 * MiB, 0x33)]
    commands = []
    for offset, length, pattern in writes:
        commands += ["-c", f"write -P {pattern:#x} {offset} {length}", "-c", "flush"]
    run("qemu-io", "-f", "raw", "-t", cache, *commands, url)
    for offset, length, pattern in writes:
        printed = run("qemu-io", "-f", "raw", "-c", f"read -P {pattern:#x} {offset} {length}", url)
        assert f"read {length}/{length} bytes" in printed
        assert "Pattern verification failed" not in printed


def test_a_failed_comparison_is_seen(storage):
    """qemu-io says so in words only; its exit code is 0 or 1 by version."""
    url = storage["two"].url
    run("qemu-io", "-f", "raw", "-c", "write -P 0x44 0 4096", url)
    peers.require("qemu-io")
    done = subprocess.run(
        ["qemu-io", "-f", "raw", "-c", "read -P 0x45 0 4096", url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Pattern verification failed" in done.stdout


def test_qemu_offloads_a_copy_to_the_target(storage, image):
    """`convert -C` falls back to reads and writes without a word: the commands are counted."""
    copy_in(image, storage["one"].url)
    with Relay(*storage.address) as source, Relay(*storage.address) as destination:
        run(
            *("qemu-img", "convert", "-n", "-C", "-f", "raw", "-O", "raw"),
            *(source.url(storage["one"].url), destination.url(storage["two"].url)),
        )
        commands = source.commands + destination.commands
        moved_through_client = source.bytes_to_initiator + destination.bytes_to_target
    assert commands[EXTENDED_COPY] >= 1
    assert sum(commands[code] for code in WRITE_COMMANDS) == 0
    assert moved_through_client < MiB
    compare(image, storage["two"].url)


def test_the_relay_sees_the_reads_and_writes_of_a_plain_copy(storage, image):
    """The counting proof of the test above, where the answer is known to be no."""
    with Relay(*storage.address) as relay:
        copy_in(image, relay.url(storage["two"].url))
        commands = relay.commands
    assert commands[EXTENDED_COPY] == 0
    assert sum(commands[code] for code in WRITE_COMMANDS) >= 1
    assert relay.bytes_to_target > 256 * MiB
