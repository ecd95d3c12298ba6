"""Designation descriptors and the name that a unit keeps for ever."""

import pytest

from serverfree.scsi.designator import (
    Association,
    CodeSet,
    Designator,
    DesignatorType,
    locally_assigned,
    unpack_designators,
)

NAA_6 = bytes.fromhex("01 03 00 10 60 01 40 5f 00 01 02 03 04 05 06 07 08 09 0a 0b")
PORT = bytes.fromhex("53 98 00 08") + b"iqn.a:b\0"  # PIV, target port, SCSI name string, iSCSI


def test_a_descriptor_is_read_and_written_as_the_clause_draws_it() -> None:
    naa = Designator.unpack(NAA_6)
    assert (naa.type, naa.code_set, naa.association) == (
        DesignatorType.NAA,
        CodeSet.BINARY,
        Association.LOGICAL_UNIT,
    )
    assert naa.identifier == NAA_6[4:]
    assert naa.protocol is None
    assert naa.pack() == NAA_6
    port = Designator.unpack(PORT)
    assert (port.protocol, port.association, port.type) == (
        5,
        Association.TARGET_PORT,
        DesignatorType.SCSI_NAME_STRING,
    )
    assert port.pack() == PORT


def test_a_list_ends_before_a_descriptor_that_is_cut_short() -> None:
    assert [each.pack() for each in unpack_designators(NAA_6 + PORT)] == [NAA_6, PORT]
    assert [each.pack() for each in unpack_designators(NAA_6 + PORT[:-1])] == [NAA_6]
    assert list(unpack_designators(NAA_6[:3])) == []
    with pytest.raises(ValueError):
        Designator.unpack(NAA_6[:10])


def test_unknown_codes_survive_a_round_trip() -> None:
    odd = bytes.fromhex("0f 0e 00 02 aa bb")
    assert Designator.unpack(odd).type == 0x0E
    assert Designator.unpack(odd).pack() == odd


def test_names_give_an_naa_locally_assigned_designator() -> None:
    designator = locally_assigned("iqn.2026-11.com.example:storage", "disk")
    assert designator.type is DesignatorType.NAA
    assert designator.association is Association.LOGICAL_UNIT
    assert designator.code_set is CodeSet.BINARY
    assert len(designator.identifier) == 8
    assert designator.identifier[0] >> 4 == 3
    # Written down once and for all: if this changes, every initiator sees new disks.
    assert designator.identifier.hex() == "3a7f16f14f037f23"


def test_different_names_give_different_designators() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")]
    assert len({locally_assigned(*pair).identifier for pair in pairs}) == len(pairs)


def test_the_same_thing_is_known_by_other_framing() -> None:
    ours = Designator.unpack(NAA_6)
    assert ours.same(Designator(DesignatorType.NAA, NAA_6[4:], CodeSet.ASCII))
    assert not ours.same(Designator(DesignatorType.EUI_64, NAA_6[4:]))
    assert not ours.same(
        Designator(DesignatorType.NAA, NAA_6[4:], association=Association.TARGET_PORT)
    )


def test_a_designator_prints_as_tools_write_it() -> None:
    assert str(Designator.unpack(NAA_6)) == "naa.6001405f000102030405060708090a0b"
    assert str(Designator.unpack(PORT)) == "iqn.a:b"
    assert str(Designator(DesignatorType.T10_VENDOR_ID, b"SRVFREE disk  ")) == "t10.SRVFREE disk"
    assert str(Designator(DesignatorType.EUI_64, bytes(8))) == "eui.0000000000000000"
    assert str(Designator(DesignatorType.TARGET_PORT_GROUP, b"\0\0\0\1")) == "type 5 00000001"


def test_text_of_a_peer_is_shown_on_one_line_with_what_is_not_printable_escaped() -> None:
    # As the Linux target frames its T10 vendor designator: vendor, NUL-padded serial.
    vendor = Designator(DesignatorType.T10_VENDOR_ID, b"LIO-ORG a\0b\xff\x1b[31m\n\0\0 ")
    assert str(vendor) == r"t10.LIO-ORG a\x00b\xff\x1b[31m\n"
    name = Designator(
        DesignatorType.SCSI_NAME_STRING, "iqn.2026-11.com.ex:größe".encode() + b"\0\0"
    )
    assert str(name) == "iqn.2026-11.com.ex:größe"
