"""Descriptor format sense data (SPC-4 4.5.2)."""

from hypothesis import given
from hypothesis import strategies as st

from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey

LARGEST = (1 << 63) - 1


def test_no_sense_is_eight_bytes() -> None:
    assert Sense(SenseKey.NO_SENSE).pack_descriptors() == bytes.fromhex("72 00 00 00 00 00 00 00")


def test_each_descriptor_in_bytes() -> None:
    sense = Sense(
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_FIELD_IN_CDB,
        information=0x0102030405060708,
        pointer=FieldPointer(2, 5, in_cdb=True),
        ili=True,
    )
    assert sense.pack_descriptors() == bytes.fromhex(
        "72 05 24 00 00 00 00 18"
        "00 0a 80 00 01 02 03 04 05 06 07 08"
        "02 06 00 00 cd 00 02 00"
        "04 02 00 20"
    )


@given(
    st.builds(
        Sense,
        key=st.sampled_from([SenseKey.ILLEGAL_REQUEST, SenseKey.MEDIUM_ERROR]),
        asc=st.sampled_from(list(Asc)),
        information=st.none() | st.integers(-LARGEST, LARGEST),
        filemark=st.booleans(),
        eom=st.booleans(),
        ili=st.booleans(),
        deferred=st.booleans(),
        command_specific=st.integers(0, LARGEST),
    )
)
def test_what_is_packed_is_read_back(sense: Sense) -> None:
    packed = sense.pack_descriptors()
    assert packed[7] == len(packed) - 8
    assert Sense.unpack(packed) == sense


def test_forwarded_sense_stays_within_the_longest_sense_data() -> None:
    sense = Sense(
        SenseKey.COPY_ABORTED,
        Asc.THIRD_PARTY_DEVICE_FAILURE,
        forwarded_source=b"\x02" + bytes(200),
        forwarded_destination=b"\x02" + bytes(200),
    )
    packed = sense.pack_descriptors()
    assert len(packed) == 252
    read = Sense.unpack(packed)
    assert read.forwarded_source == sense.forwarded_source
    assert read.forwarded_destination == sense.forwarded_destination[: 252 - 20 - 204 - 3]
    # 4.5.2.7: FSDT is set where the forwarded sense was cut, and there only.
    assert packed[20:23] == bytes((0x0C, 202, 0x01))
    assert packed[20 + 204 : 20 + 204 + 3] == bytes((0x0C, 26, 0x82))


def test_the_first_segment_is_named_like_every_other() -> None:
    for number in (0, 7):
        sense = Sense(SenseKey.COPY_ABORTED, Asc.UNREACHABLE_COPY_TARGET, command_specific=number)
        assert sense.pack_descriptors() == bytes.fromhex(
            f"72 0a 08 04 00 00 00 0c 01 0a 00 00 00000000000000{number:02x}"
        )
