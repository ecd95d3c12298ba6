"""Protection information against what others compute: CASTOR's, LTFS's and RFC 3720's vectors."""

from random import Random

import pytest

from serverfree.scsi.tape_mode import ProtectionMethod
from serverfree.scsi.tape_protection import protection_information

PRIMES = [each for each in range(2, 252) if all(each % small for small in range(2, each))]


def reed_solomon(data: bytes) -> str:
    return protection_information(ProtectionMethod.REED_SOLOMON, data).hex()


def test_crc32c_of_the_check_string_comes_with_its_least_byte_first() -> None:
    data = protection_information(ProtectionMethod.CRC32C, b"123456789")
    assert data.hex() == "839206e3"


@pytest.mark.parametrize(("count", "expected"), [(37, "733d4dca"), (54, "754ed37e")])
def test_reed_solomon_of_the_primes_as_in_castor(count: int, expected: str) -> None:
    assert reed_solomon(bytes(PRIMES[:count])) == expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (1, "235b2322"),
        (9, "00b2ad78"),
        (254, "9798f925"),
        (255, "d6512071"),
        (256, "6a1ec008"),
        (511, "47eceded"),
        (4096, "3d9d71fd"),
        (65536, "84e02d4a"),
        (262145, "bfca80f6"),
    ],
)
def test_reed_solomon_as_ltfs_computes_it(length: int, expected: str) -> None:
    """Of random.Random(length).randbytes(length); rs_gf256_enc of LTFS put these behind it."""
    assert reed_solomon(Random(length).randbytes(length)) == expected


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 600])
def test_a_block_and_its_reed_solomon_bytes_are_a_codeword(length: int) -> None:
    """The remainder of a multiple of the generator is nothing."""
    data = Random(length).randbytes(length)
    information = bytes.fromhex(reed_solomon(data))
    assert reed_solomon(data + information) == "00000000"


@pytest.mark.parametrize("method", [ProtectionMethod.REED_SOLOMON, ProtectionMethod.CRC32C])
def test_any_kind_of_buffer(method: ProtectionMethod) -> None:
    data = bytes(range(256)) * 3
    expected = protection_information(method, data)
    assert protection_information(method, memoryview(data)) == expected
    assert protection_information(method, bytearray(data)) == expected
