"""CSCDs by address, E5h and EAh: bytes from SPC-4 7.6.3.8 and 7.6.3.9, units over real sockets."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from serverfree.datamover.errors import UnitUnreachable
from serverfree.datamover.fabric import NetworkFabric
from serverfree.datamover.manager import LIMITS, CopyManager
from serverfree.iscsi.names import Portal
from serverfree.scsi.copy_cscd import (
    AliasCscd,
    BlockParameters,
    Extension,
    IdentificationCscd,
    Ipv4Cscd,
    Ipv6Cscd,
    StreamParameters,
)
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockToBlock, VerifyCscd
from serverfree.scsi.designator import locally_assigned
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.luns import pack_lun
from serverfree.target.backstore.file import open_file_store
from serverfree.target.server import Server
from serverfree.target.session import Target
from serverfree.target.units.block import BlockUnit
from support.copies import ModelFabric, SenseBytes, noise
from support.fake_devices import FakeDisk

SIZE = 64 * 512
V4 = Ipv4Cscd(pack_lun(1), IPv4Address("10.1.2.3"), 3260, BlockParameters(512, True), 0)
V6 = Ipv6Cscd(pack_lun(2), IPv6Address("2001:db8::1"), 860, StreamParameters(), 1, 7)
V4_BYTES = bytes.fromhex(
    "e5 00 0000 0001000000000000 0a010203 000000000000 0cbc 0000 0006 04000200"
)
V6_BYTES = bytes.fromhex(
    "ea 01 0007 0002000000000000 20010db8000000000000000000000001 00000000"
    "ff 00 035c 0006" + "00" * 26
)


def test_descriptors_have_the_bytes_of_their_tables() -> None:
    assert (V4.pack(), V6.pack()) == (V4_BYTES, V6_BYTES)
    assert (Ipv4Cscd.unpack(V4_BYTES), Ipv6Cscd.unpack(V6_BYTES)) == (V4, V6)


class There(ModelFabric):
    """Model devices, by their LUN at any portal too."""

    def open_at(self, portal: Portal, lun: int, nexus: object = None):
        if lun >= len(self.devices):
            raise UnitUnreachable(str(portal))
        return self.devices[lun]

    def open_named(self, target: str, lun: int, nexus: object = None):
        assert target == "iqn.2026-11.com.example:one"
        return self.devices[lun]


def refusal(manager: CopyManager, raw: bytes) -> bytes:
    with pytest.raises(CheckCondition) as caught:
        manager.extended_copy("a", raw, lambda: False)
    return caught.value.sense.pack()


def test_address_of_sixteen_bytes_has_two_identifiers() -> None:
    manager = CopyManager(There())
    last = IdentificationCscd(locally_assigned("x", "y"), BlockParameters(), 0)
    raw = CopyList([V6, Extension(), last], [VerifyCscd(1)]).pack()
    assert len(raw) == 16 + 64 + 32 + 12
    limits = manager._limits
    assert CopyList.unpack(raw, limits).cscds == [V6, Extension(), last]
    sense = SenseBytes(refusal(manager, raw))
    assert (sense.code, sense.pointer) == (0x2600, ("segment", 4))


def test_first_half_without_its_second_is_an_error_when_it_is_used() -> None:
    raw = bytearray(CopyList([V6, Extension()], [VerifyCscd(0)]).pack())
    raw[16 + 32] = 0xE4
    sense = SenseBytes(refusal(CopyManager(There()), bytes(raw)))
    assert (sense.code, sense.pointer) == (0x2600, ("list", 16 + 32))


@pytest.mark.parametrize(
    ("raw", "code", "pointer"),
    [
        (V4_BYTES[:27] + b"\x11" + V4_BYTES[28:], 0x2600, 16 + 26),  # UDP
        (V4_BYTES[:1] + b"\x02" + V4_BYTES[2:], 0x2600, 16 + 1),  # reserved device type
        # LU ID TYPE 01b is a proxy token, 10b and 11b are reserved: no LUN (table 133).
        (V4_BYTES[:1] + b"\x40" + V4_BYTES[2:], 0x2600, 16 + 1),
        (V6_BYTES[:1] + b"\x80" + V6_BYTES[2:], 0x2600, 16 + 1),
        (b"\xe6\xc0" + bytes(26) + b"\0\0\x02\0", 0x2600, 16 + 1),
        (V6_BYTES[:32], 0x1A00, None),  # cut in half
        (V6_BYTES[32:], 0x2607, 16),  # the second half alone
    ],
)
def test_descriptor_that_cannot_be(raw: bytes, code: int, pointer: int | None) -> None:
    header = bytes([1, 0]) + len(raw).to_bytes(2, "big") + bytes(12)
    sense = refusal(CopyManager(There()), header + raw)
    assert (sense[2], int.from_bytes(sense[12:14], "big")) == (5, code)
    if pointer is not None:
        assert int.from_bytes(sense[16:18], "big") == pointer


def test_only_a_manager_with_portals_knows_these_types() -> None:
    assert not {0xE5, 0xE6, 0xEA} & set(LIMITS.descriptor_types)
    with_portals = CopyManager(There()).receive_copy_results("a", 3, 0, 1000)
    assert with_portals[-4:] == b"\xe4\xe5\xe6\xea"
    raw = CopyList([V4], []).pack()
    sense = refusal(CopyManager(ModelFabric()), raw)
    assert sense[12:14] == b"\x26\x07"


# ---------------------------------------------------------------------- aliases


ALIAS = AliasCscd(pack_lun(1), b"\1\2\3\4\5\6\7\x08", BlockParameters(512), 0)
NAMED = bytes.fromhex("0102030405060708 05 0000 00 0000 001c") + b"iqn.2026-11.com.example:one\0"
# With an IPv4 address (table 486): the name is enough, and the address may be used.
WITH_ADDRESS = (
    bytes.fromhex("0102030405060709 05 0000 01 0000 0028")
    + b"iqn.2026-11.com.example:one\0"
    + bytes.fromhex("7f000001 0000 0cbc 0000 0006")
)
REMOVED = bytes.fromhex("0102030405060708 80 0000 00 0000 0000")


def change(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return (len(body) + 4).to_bytes(4, "big") + bytes(4) + body


def test_alias_descriptor_has_the_bytes_of_table_141() -> None:
    raw = bytes.fromhex("e6 00 0000 0001000000000000 0102030405060708 0000000000000000 00000200")
    assert ALIAS.pack() == raw
    assert AliasCscd.unpack(raw) == ALIAS


def test_alias_list_is_that_of_its_nexus_and_changes_as_asked() -> None:
    manager = CopyManager(There())
    assert manager.report_aliases("a") == bytes.fromhex("00000004 0000 0000")
    manager.change_aliases("a", change(NAMED, WITH_ADDRESS))
    body = NAMED + WITH_ADDRESS
    listed = (len(body) + 4).to_bytes(4, "big") + bytes.fromhex("0000 0002") + body
    assert manager.report_aliases("a") == listed
    assert manager.report_aliases("b") == bytes.fromhex("00000004 0000 0000")
    manager.change_aliases("a", change(REMOVED))
    assert manager.report_aliases("a")[6:8] == b"\0\1"
    manager.forget("a")
    assert manager.report_aliases("a")[6:8] == b"\0\0"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (bytes(7), 0x1A00),
        (change(WITH_ADDRESS, NAMED)[:-1], 0x1A00),
        (change(WITH_ADDRESS, NAMED[:8] + b"\0" + NAMED[9:]), 0x2600),  # Fibre Channel
        (change(WITH_ADDRESS, NAMED[:15] + b"\x1b" + NAMED[16:-1]), 0x2600),  # 27 bytes
    ],
)
def test_list_that_cannot_be_changes_nothing(raw: bytes, code: int) -> None:
    manager = CopyManager(There())
    with pytest.raises(CheckCondition) as caught:
        manager.change_aliases("a", raw)
    sense = caught.value.sense.pack()
    assert (sense[2], int.from_bytes(sense[12:14], "big")) == (5, code)
    assert manager.report_aliases("a")[6:8] == b"\0\0"


def test_copy_by_alias_reaches_the_unit_of_the_target() -> None:
    disks = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    manager = CopyManager(There(*disks))
    source = AliasCscd(pack_lun(0), ALIAS.alias, BlockParameters(512), 0)
    raw = CopyList([source, ALIAS], [BlockToBlock(0, 1, 8, 0, 0)]).pack()
    sense = SenseBytes(refusal(manager, raw))
    assert (sense.code, sense.pointer) == (0x0D02, ("list", 16))
    manager.change_aliases("a", change(NAMED))
    manager.extended_copy("a", raw, lambda: False)
    assert disks[1].data == disks[0].data

    def change_meanwhile() -> bool:
        with pytest.raises(CheckCondition) as caught:
            manager.change_aliases("a", change(REMOVED))
        assert caught.value.sense.pack()[12:14] == b"\x00\x16"
        return False

    manager.extended_copy("a", raw, change_meanwhile)
    manager.change_aliases("a", change(REMOVED))


# ---------------------------------------------------------------------- over the network


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    targets = []
    for name, disks in (("one", 2), ("two", 1)):
        iqn = f"iqn.2026-11.com.example:{name}"
        units = [
            BlockUnit(str(n), open_file_store(tmp_path / f"{name}{n}", size=SIZE), target=iqn)
            for n in range(disks)
        ]
        targets.append(Target(iqn, units))
    server = Server(targets, [Portal("127.0.0.1", 0)])
    yield server
    server.stop()


def test_unit_is_found_where_its_lun_is_at_that_portal(server: Server, tmp_path: Path) -> None:
    portal = server.start()[0]
    fabric = NetworkFabric([Portal("localhost", portal.port)])
    content = bytes(range(256)) * (SIZE // 256)
    (tmp_path / "one1").write_bytes(content)
    source = Ipv4Cscd(pack_lun(1), IPv4Address("127.0.0.1"), portal.port, BlockParameters(512), 0)
    other = IdentificationCscd(
        locally_assigned("iqn.2026-11.com.example:two", "0"), BlockParameters(512), 0
    )
    try:
        manager = CopyManager(fabric)
        segments = [BlockToBlock(0, 1, SIZE // 512, 0, 0)]
        manager.extended_copy("a", CopyList([source, other], segments).pack(), lambda: False)
        manager.change_aliases("a", change(NAMED))
        copy_list = CopyList([ALIAS, other], segments)
        manager.extended_copy("a", copy_list.pack(), lambda: False)
        for lun, why in ((0, "both targets have it"), (5, "none has it")):
            wrong = Ipv4Cscd(
                pack_lun(lun), IPv4Address("127.0.0.1"), portal.port, BlockParameters(512), 0
            )
            raw = CopyList([wrong, other], segments).pack()
            sense = SenseBytes(refusal(manager, raw))
            assert (sense.code, sense.pointer) == (0x0D02, ("list", 16)), why
        elsewhere = Ipv4Cscd(
            pack_lun(1), IPv4Address("127.0.0.1"), portal.port + 1, BlockParameters(512), 0
        )
        sense = SenseBytes(refusal(manager, CopyList([elsewhere], [VerifyCscd(0)]).pack()))
        assert sense.code == 0x0D02, "a portal that nobody has allowed"
    finally:
        fabric.close()
    assert (tmp_path / "two0").read_bytes() == content
