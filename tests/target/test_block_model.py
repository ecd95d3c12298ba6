"""A disk is an array of blocks, whatever commands reach it in whatever order."""

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serverfree.scsi.cdb.block import (
    Read6,
    Read10,
    Read12,
    Read16,
    SynchronizeCache10,
    Unmap,
    Verify10,
    Verify16,
    Write6,
    Write10,
    Write12,
    Write16,
    WriteAndVerify10,
    WriteAndVerify16,
    WriteSame10,
    WriteSame16,
)
from serverfree.scsi.cdb.primary import TestUnitReady
from serverfree.scsi.provisioning import BlockRange, LbaStatus, pack_unmap_list
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.block import BlockUnit
from support.disk import OTHER, Host, make_disk

SIZE = 48 << 10
BLOCKS = SIZE // 512
POWER_ON, RESET, MODE_PARAMETERS_CHANGED = 0x2900, 0x2903, 0x2A01
CAPACITY_CHANGED, INQUIRY_CHANGED = 0x2A09, 0x3F03
LBA = st.integers(0, BLOCKS + 3)
COUNT = st.integers(0, 40)
SEED = st.integers(0, 255)


class DiskModel(RuleBasedStateMachine):
    """A thin disk of two hosts beside a bytearray, a number of blocks and their length."""

    path: Path
    number = 0
    turn = 0

    @initialize(block_size=st.sampled_from((512, 4096)))
    def make(self, block_size: int) -> None:
        DiskModel.number += 1
        self.file = self.path / f"disk{DiskModel.number}"
        self.configured, self.block_size = block_size, block_size
        self.blocks = SIZE // block_size
        self.model = bytearray(SIZE)
        self.serve()

    def serve(self) -> None:
        store = open_file_store(self.file, SIZE, thin=True)
        state = StateFile(self.file.with_suffix(".state"))
        unit = BlockUnit("d", store, block_size=self.configured, state=state)
        self.hosts = Host(unit), Host(unit, OTHER)
        self.attentions: list[set[int]] = [{POWER_ON}, {POWER_ON}]
        for host in self.hosts:
            unit.attach(host.nexus)
        self.hear()

    def hear(self) -> None:
        """Both hosts hear what the model says that they have to, once."""
        for host, expected in zip(self.hosts, self.attentions, strict=True):
            heard = set()
            while (sense := host(TestUnitReady()).sense) is not None:
                assert sense.key is SenseKey.UNIT_ATTENTION
                heard.add(int(sense.asc))
            assert heard == expected
            expected.clear()

    @property
    def disk(self) -> Host:
        """Whichever host's turn it is."""
        return self.hosts[self.turn]

    def teardown(self) -> None:
        if hasattr(self, "hosts"):
            self.disk.unit.close()

    @rule()
    def take_turns(self) -> None:
        self.turn = 1 - self.turn

    @rule()
    def restart(self) -> None:
        self.disk.unit.close()
        self.serve()

    @rule()
    def reset(self) -> None:
        self.disk.unit.reset()
        for each in self.attentions:
            each.add(RESET)
        self.hear()

    @rule(block_size=st.sampled_from((512, 2048, 4096)), format_unit=st.booleans())
    def reformat(self, block_size: int, format_unit: bool) -> None:
        descriptor = bytes(12) + block_size.to_bytes(4, "big")
        self.select(descriptor)
        longer = block_size != self.block_size
        other = self.attentions[1 - self.turn]
        if longer:
            other.add(MODE_PARAMETERS_CHANGED)
        if format_unit:
            self.disk.good(bytes.fromhex("04 00 00 00 00 00"))
            self.model = bytearray(SIZE)
            if longer:
                other |= {CAPACITY_CHANGED, INQUIRY_CHANGED}
                self.block_size, self.blocks = block_size, SIZE // block_size
        elif longer:
            descriptor = self.blocks.to_bytes(8, "big") + bytes(4)
            self.select(descriptor + self.block_size.to_bytes(4, "big"))
        self.hear()

    @rule(blocks=st.integers(1, SIZE // 512))
    def resize(self, blocks: int) -> None:
        blocks = min(blocks, SIZE // self.block_size)
        self.select(blocks.to_bytes(8, "big") + bytes(4) + self.block_size.to_bytes(4, "big"))
        if blocks != self.blocks:
            self.blocks = blocks
            self.attentions[1 - self.turn] |= {MODE_PARAMETERS_CHANGED, CAPACITY_CHANGED}
        self.hear()

    def select(self, descriptor: bytes) -> None:
        """MODE SELECT(10) of a long LBA block descriptor."""
        cdb = bytes.fromhex("55 10 00 00 00 00 00 00 18 00")
        self.disk.good(cdb, bytes.fromhex("0000 00 00 01 00 0010") + descriptor)

    def data(self, seed: int, blocks: int) -> bytes:
        """Blocks of which some are zeros and no two others alike."""
        return b"".join(
            bytes((i * 7 + seed) % 256 if seed % 5 else 0 for _ in range(self.block_size))
            for i in range(blocks)
        )

    def span(self, lba: int, blocks: int) -> slice:
        """Where the blocks lie in the model."""
        return slice(lba * self.block_size, (lba + blocks) * self.block_size)

    def is_past_the_end(self, lba: int, blocks: int, cdb: object, data: bytes = b"") -> bool:
        """Whether the range leaves the disk, and then that the command is refused for it."""
        if lba + blocks <= self.blocks:
            return False
        sense = self.disk.sense(cdb, data)  # type: ignore[arg-type]
        assert sense.asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
        return True

    @rule(layout=st.sampled_from((Read6, Read10, Read12, Read16)), lba=LBA, blocks=COUNT)
    def read(self, layout: type[Read10], lba: int, blocks: int) -> None:
        blocks = max(1, blocks)
        cdb = layout(lba=lba, blocks=blocks)
        if not self.is_past_the_end(lba, blocks, cdb):
            assert self.disk.good(cdb) == self.model[self.span(lba, blocks)]

    @rule(
        layout=st.sampled_from(
            (Write6, Write10, Write12, Write16, WriteAndVerify10, WriteAndVerify16)
        ),
        lba=LBA,
        blocks=COUNT,
        seed=SEED,
    )
    def write(self, layout: type[Write10], lba: int, blocks: int, seed: int) -> None:
        blocks = max(1, blocks)
        cdb, data = layout(lba=lba, blocks=blocks), self.data(seed, blocks)
        if not self.is_past_the_end(lba, blocks, cdb, data):
            assert self.disk.unit.data_out_length(cdb.pack()) == len(data)
            self.disk.good(cdb, data)
            self.model[self.span(lba, blocks)] = data

    @rule(
        layout=st.sampled_from((WriteSame10, WriteSame16)),
        lba=LBA,
        blocks=COUNT,
        seed=SEED,
        unmap=st.booleans(),
    )
    def write_same(
        self, layout: type[WriteSame10], lba: int, blocks: int, seed: int, unmap: bool
    ) -> None:
        blocks = max(1, blocks)
        cdb, block = layout(lba=lba, blocks=blocks, unmap=unmap), self.data(seed, 1)
        if not self.is_past_the_end(lba, blocks, cdb, block):
            self.disk.good(cdb, block)
            self.model[self.span(lba, blocks)] = block * blocks

    @rule(ranges=st.lists(st.tuples(LBA, COUNT), max_size=4))
    def unmap(self, ranges: list[tuple[int, int]]) -> None:
        data = pack_unmap_list(BlockRange(*each) for each in ranges)
        cdb = Unmap(parameter_list_length=len(data))
        for each in ranges:
            if self.is_past_the_end(*each, cdb, data):
                return
        self.disk.good(cdb, data)
        for lba, blocks in ranges:
            self.model[self.span(lba, blocks)] = bytes(blocks * self.block_size)

    @rule(
        layout=st.sampled_from((Verify10, Verify16)),
        lba=LBA,
        blocks=COUNT,
        wrong=st.none() | st.integers(0, 1 << 20),
    )
    def verify(self, layout: type[Verify10], lba: int, blocks: int, wrong: int | None) -> None:
        cdb = layout(byte_check=1, lba=lba, blocks=blocks)
        data = bytearray(self.model[self.span(lba, blocks)])
        if self.is_past_the_end(lba, blocks, cdb, bytes(data)):
            return
        if wrong is None or not data:
            self.disk.good(cdb, data)
            return
        wrong %= len(data)
        data[wrong] ^= 0x80
        assert self.disk.sense(cdb, data).information == lba + wrong // self.block_size

    @rule()
    def synchronize(self) -> None:
        self.disk.good(SynchronizeCache10())

    @invariant()
    def the_disk_is_its_model(self) -> None:
        if not hasattr(self, "hosts"):
            return
        for host in self.hosts:
            assert (
                host.good(Read10(blocks=self.blocks))
                == self.model[: self.span(0, self.blocks).stop]
            )

    @invariant()
    def what_is_deallocated_is_zeros(self) -> None:
        if not hasattr(self, "hosts"):
            return
        status = self.disk.good(
            bytes.fromhex("9e 12") + bytes(8) + bytes.fromhex("00 00 ff ff 00 00")
        )
        at = 0
        for run in LbaStatus.unpack_list(status):
            assert run.lba == at
            if run.status:
                assert not any(self.model[self.span(run.lba, run.blocks)])
            at += run.blocks
        assert at == self.blocks


def test_a_disk_is_an_array_of_blocks(tmp_path: Path) -> None:
    probe = make_disk(tmp_path / "probe", 4096, thin=True)
    if not probe.thin:
        pytest.skip(f"the file system of {tmp_path} cannot punch holes")
    DiskModel.path = tmp_path
    machine = DiskModel.TestCase
    machine.settings = settings(max_examples=18, stateful_step_count=20, deadline=None)
    machine("runTest").runTest()
