"""`serverfree cartridge`: check names all damage, repair mends what can be, images go both ways."""

import io
import os
import time
from pathlib import Path

import pytest

from serverfree.cli.main import main
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_check import check_cartridge, repair_cartridge
from serverfree.target.backstore.cartridge_errors import CartridgeError, DamagedRecord
from serverfree.target.backstore.cartridge_image import export_image, import_image
from serverfree.target.backstore.cartridge_log import (
    HEADER_LENGTH,
    LOG_START,
    RecordLog,
    RecordType,
)
from serverfree.target.units.command import Nexus
from support.tape import LOAD, UNLOAD, make_drive, read, sense, write

OVERHEAD = 72
BLOCKS = [b"a" * 100, None, b"b" * 333, b"c" * 50, None, b"d" * 8]


@pytest.fixture
def folder(tmp_path):
    """A cartridge of two partitions, the same objects in both."""
    cartridge = open_cartridge(tmp_path / "c", 1 << 20)
    cartridge.format([1 << 19, 1 << 19])
    for partition in cartridge.partitions:
        for each in BLOCKS:
            if each is None:
                partition.mark(1)
            else:
                partition.append([each])
    cartridge.memory.save()
    cartridge.close()
    return tmp_path / "c"


def offset(block):
    """Where the record of a block begins."""
    return LOG_START + sum(len(each or b"") + OVERHEAD for each in BLOCKS[:block])


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x40
    path.write_bytes(raw)


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestCheck:
    def test_sound(self, folder):
        before = snapshot(folder)
        assert check_cartridge(folder) == []
        assert snapshot(folder) == before

    @pytest.mark.parametrize("block", [0, 2, 5])
    def test_damaged_payload_is_named_by_its_block(self, folder, block):
        flip(folder / "part1.log", offset(block) + HEADER_LENGTH + 3)
        before = snapshot(folder)
        (finding,) = check_cartridge(folder)
        assert (
            str(finding) == f"part1.log: block {block} is damaged (record at byte {offset(block)})"
        )
        assert finding.lasting
        assert snapshot(folder) == before

    def test_damaged_header_loses_its_block_only(self, folder):
        flip(folder / "part0.log", offset(2) + 9)
        (finding,) = check_cartridge(folder)
        assert str(finding) == (
            f"part0.log: block 2 lost: damage from byte {offset(2)} to {offset(3)}"
        )

    def test_zeros_over_several_records(self, folder):
        raw = bytearray((folder / "part0.log").read_bytes())
        raw[offset(1) : offset(4)] = bytes(offset(4) - offset(1))
        (folder / "part0.log").write_bytes(raw)
        (finding,) = check_cartridge(folder)
        assert str(finding).startswith("part0.log: blocks 1 to 3 lost")

    def test_log_cut_short(self, folder):
        os.truncate(folder / "part0.log", offset(4) + 10)
        (finding,) = check_cartridge(folder)
        assert str(finding).startswith("part0.log: blocks 4 to 5 lost")

    def named(self, folder):
        """What check says, but that the older superblock knows less of what was written."""
        found = [str(finding) for finding in check_cartridge(folder)]
        return [each for each in found if not each.endswith("written after the last sync")]

    def test_torn_tail(self, folder):
        with (folder / "part0.log").open("ab") as log:
            log.write(b"torn")
        (finding,) = check_cartridge(folder)
        what = "4 bytes behind the data: a torn record, or what was overwritten"
        assert (str(finding), finding.lasting) == (f"part0.log: {what}", False)

    @pytest.mark.parametrize(
        ("name", "at", "what"),
        [
            ("part0.idx", 40, "part0.idx: 1 entries wrong, the first that of block 1"),
            ("part1.log", 20, "part1.log: its file header is damaged"),
            ("state.A", 30, "state.A: is damaged"),
            ("state.B", 30, "state.B: is damaged"),
            ("memory.json", 60, "memory.json: is damaged; attributes and counts are lost"),
        ],
    )
    def test_what_can_be_made_anew_is(self, folder, name, at, what):
        flip(folder / name, at)
        assert self.named(folder) == [what]
        found, left = repair_cartridge(folder)
        assert (str(found[0]), left) == (what, [])
        assert check_cartridge(folder) == []
        assert read_back(folder) == [BLOCKS, BLOCKS]

    @pytest.mark.parametrize("name", ["part0.idx", "part1.idx", "state.A", "state.B"])
    def test_what_is_gone_comes_back(self, folder, name):
        (folder / name).unlink()
        assert self.named(folder) == [f"{name}: is missing"]
        assert not (folder / name).exists(), "check changes nothing"
        assert repair_cartridge(folder)[1] == []
        assert read_back(folder) == [BLOCKS, BLOCKS]

    def test_a_damaged_block_stays_damaged_and_costs_no_other(self, folder):
        flip(folder / "part0.log", offset(2) + HEADER_LENGTH)
        flip(folder / "part0.idx", 5)
        found, left = repair_cartridge(folder)
        assert (len(found), len(left)) == (2, 1)
        first, second = read_back(folder)
        assert first == [*BLOCKS[:2], "damaged", *BLOCKS[3:]]
        assert second == BLOCKS

    def test_in_a_drive(self, folder):
        cartridge = open_cartridge(folder)
        with pytest.raises(CartridgeError, match="in use"):
            check_cartridge(folder)
        cartridge.close()

    def test_no_cartridge(self, tmp_path):
        with pytest.raises(CartridgeError, match="no cartridge there"):
            check_cartridge(tmp_path)


def read_back(folder):
    cartridge = open_cartridge(folder)
    found = []
    for partition in cartridge.partitions:
        objects = []
        for block in range(partition.eod):
            if partition.entry(block).type == RecordType.FILEMARK:
                objects.append(None)
                continue
            try:
                objects.append(bytes(partition.read(block)))
            except DamagedRecord:
                objects.append("damaged")
        found.append(objects)
    cartridge.close()
    return found


def image_of(*words_and_data):
    return b"".join(
        each.to_bytes(4, "little") if isinstance(each, int) else each for each in words_and_data
    )


class TestImages:
    @pytest.fixture
    def partition(self, tmp_path):
        cartridge = open_cartridge(tmp_path / "i", 1 << 20)
        yield cartridge.partitions[0]
        cartridge.close()

    def test_objects_of_an_image(self, partition):
        image = image_of(5, b"hello\0", 5, 0, 0xFFFFFFFE, 2, b"ok", 2, 0, 0, 0xFFFFFFFF, b"rubbish")
        tally = import_image(io.BytesIO(image), partition)
        assert (tally.blocks, tally.marks, tally.skipped, tally.bytes) == (2, 3, 1, 7)
        assert partition.eod == 5
        assert [bytes(partition.read(0)), bytes(partition.read(2))] == [b"hello", b"ok"]

    def test_without_padding_without_end_with_half_a_gap(self, partition):
        half = b"\xff\xff" + image_of(0xFFFEFFFF)[2:]
        assert half[2:] == b"\xfe\xff"
        image = image_of(5, b"hello", 5, 3, b"abc", 3)
        assert import_image(io.BytesIO(image), partition, padded=False).blocks == 2

    def test_block_marked_bad_reads_as_an_error(self, partition):
        bad = 0x80000003
        tally = import_image(io.BytesIO(image_of(bad, b"abc\0", bad, 1, b"x\0", 1)), partition)
        assert (tally.blocks, tally.bad) == (2, 1)
        with pytest.raises(DamagedRecord):
            partition.read(0)
        assert bytes(partition.read(1)) == b"x"

    def test_private_classes_are_skipped(self, partition):
        private = 0x10000002
        tally = import_image(io.BytesIO(image_of(private, b"ab", private, 0)), partition)
        assert (tally.blocks, tally.marks, tally.skipped) == (0, 1, 1)

    @pytest.mark.parametrize(
        ("image", "why"),
        [
            (image_of(5, b"hel"), "breaks off in the block at byte 0"),
            (image_of(0, 4, b"data"), "breaks off in the block at byte 4"),
            (image_of(4, b"data", 5), "begins with length"),
            (b"\1\0", "breaks off in a length word"),
        ],
    )
    def test_broken_image(self, partition, image, why):
        with pytest.raises(CartridgeError, match=why):
            import_image(io.BytesIO(image), partition)

    def test_there_and_back(self, partition, tmp_path):
        image = image_of(5, b"hello\0", 5, 0, 2, b"ok", 2, 0, 0, 0xFFFFFFFF)
        import_image(io.BytesIO(image), partition)
        out = io.BytesIO()
        export_image(partition, out)
        assert out.getvalue() == image

    def test_commands(self, tmp_path, capsys):
        image, folder, back = tmp_path / "x.tap", tmp_path / "new", tmp_path / "y.tap"
        image.write_bytes(image_of(5, b"hello\0", 5, 0, 0xFFFFFFFF))
        assert main(["cartridge", "import", str(image), str(folder)]) == 0
        assert main(["cartridge", "check", str(folder)]) == 0
        assert main(["cartridge", "export", str(folder), str(back)]) == 0
        assert back.read_bytes() == image.read_bytes()
        flip(folder / "part0.log", LOG_START + HEADER_LENGTH)
        assert main(["cartridge", "check", str(folder)]) == 1
        assert main(["cartridge", "check", "--repair", str(folder)]) == 1
        out = capsys.readouterr().out
        assert "block 0 is damaged" in out
        assert "(stays)" in out


def test_create_info_protect_exchange(tmp_path, capsys):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert main(["cartridge", "create", one, "--capacity", "8MiB", "--worm"]) == 0
    assert main(["cartridge", "create", one, "--capacity", "8MiB"]) == 1
    assert (
        main(["cartridge", "create", two, "--capacity", "8MiB", "--partitions", "1MiB", "7MiB"])
        == 0
    )
    assert main(["cartridge", "protect", two, "on"]) == 0
    assert main(["cartridge", "exchange", one, two]) == 0
    capsys.readouterr()
    assert main(["cartridge", "info", one]) == 0
    out = capsys.readouterr().out
    assert "write protected  True" in out
    assert "partition 1, capacity 7340032" in out


@pytest.mark.long
def test_a_million_records(tmp_path):
    """Opened in under a second, LOCATE anywhere in under a millisecond."""
    folder = Path(tmp_path) / "million"
    cartridge = open_cartridge(folder, 1 << 30)
    (partition,) = cartridge.partitions
    for _ in range(1000):
        partition.append([b"block"] * 999)
        partition.mark(1)
    cartridge.close()
    began = time.perf_counter()
    cartridge = open_cartridge(folder)
    assert time.perf_counter() - began < 1
    (partition,) = cartridge.partitions
    assert partition.eod == 1_000_000
    places = [(number * 7919 * 131) % 1_000_000 for number in range(1000)]
    began = time.perf_counter()
    for place in places:
        partition.used_at(place)
    assert (time.perf_counter() - began) / len(places) < 0.001
    began = time.perf_counter()
    for place in places:
        assert partition.start_of_file(place // 1000) == place // 1000 * 1000
    assert (time.perf_counter() - began) / len(places) < 0.001
    cartridge.close()


def test_format_killed_between_any_two_steps(tmp_path, monkeypatch):
    """The old partitions with all they held, or the new ones with nothing."""
    steps = 0
    for stop in range(40):
        folder = tmp_path / str(stop)
        cartridge = open_cartridge(folder, 1 << 20)
        cartridge.partitions[0].append([b"old" * 10])
        cartridge.close()
        cartridge = open_cartridge(folder)
        left = [stop]

        def guard(name, left=left):
            real = getattr(os, name)

            def step(*arguments):
                if left[0] <= 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return real(*arguments)

            return step

        with monkeypatch.context() as patch:
            for name in ("pwrite", "fdatasync", "truncate", "ftruncate"):
                patch.setattr(os, name, guard(name))
            patch.setattr(type(cartridge), "_open_partitions", lambda self: None)
            try:
                cartridge.format([1 << 19, 1 << 18])
                steps = stop
            except KeyboardInterrupt:
                pass
        cartridge.abandon()
        cartridge = open_cartridge(folder)
        found = [each.eod for each in cartridge.partitions]
        assert found in ([1], [0, 0])
        cartridge.close()
        if steps:
            break
    assert steps >= 3


def test_file_header_is_what_create_writes(tmp_path):
    RecordLog.create(tmp_path / "part2.log", 2, b"i" * 16)
    assert (tmp_path / "part2.log").read_bytes() == RecordLog.file_header(2, b"i" * 16)


def test_another_cartridge_in_a_running_drive(tmp_path):
    """Unloaded, exchanged, loaded: every other nexus hears of it, and it is the other one."""
    nexus = Nexus("iqn.test:other", "iqn.test:target")
    drive = make_drive(tmp_path / "slot", capacity=1 << 20)
    drive.unit.attach(nexus)
    drive.unit.attentions.take(nexus)
    drive.good(write(3), b"one")
    open_cartridge(tmp_path / "spare", 1 << 20).close()
    exchange = ["cartridge", "exchange", str(tmp_path / "slot"), str(tmp_path / "spare")]
    assert main(exchange) == 1, "not while the drive holds it"
    drive.good(UNLOAD)
    assert main(exchange) == 0
    drive.good(LOAD)
    assert drive(bytes(6), nexus=nexus).sense == sense(6, 0x2800)
    assert drive.sense(read(3)) == sense(8, 0x0005, 3)
    drive.good(UNLOAD)
    assert main(exchange) == 0
    drive.good(LOAD)
    assert drive.good(read(3)) == b"one"
    drive.unit.close()
