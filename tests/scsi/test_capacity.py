"""READ CAPACITY data, judged by pyscsi."""

from pyscsi.pyscsi.scsi_cdb_readcapacity10 import ReadCapacity10
from pyscsi.pyscsi.scsi_cdb_readcapacity16 import ReadCapacity16

from serverfree.scsi.capacity import Capacity10, Capacity16


def test_pyscsi_reads_the_short_form() -> None:
    read = ReadCapacity10.unmarshall_datain(Capacity10(0x12345, 4096).pack())
    assert read == {"returned_lba": 0x12345, "block_length": 4096}


def test_pyscsi_reads_the_long_form() -> None:
    capacity = Capacity16(
        0x123456789A, 512, physical_exponent=3, thin=True, reads_zeros=True, lowest_aligned_lba=5
    )
    read = ReadCapacity16.unmarshall_datain(capacity.pack())
    assert len(capacity.pack()) == 32
    assert read == {
        "returned_lba": 0x123456789A,
        "block_length": 512,
        "p_type": 0,
        "prot_en": 0,
        "p_i_exponent": 0,
        "lbppbe": 3,
        "lbpme": 1,
        "lbprz": 1,
        "lowest_aligned_lba": 5,
    }


def test_what_is_packed_is_read_back() -> None:
    for capacity in (Capacity10(7, 512), Capacity16(1 << 40, 4096, thin=True)):
        assert type(capacity).unpack(capacity.pack()) == capacity


def test_twelve_bytes_of_the_long_form_are_enough_for_the_size() -> None:
    assert Capacity16.unpack(Capacity16(99, 512, thin=True).pack()[:12]) == Capacity16(99, 512)
