"""Every additional sense code of ours has the words that sg3_utils has for it."""

import subprocess

import pytest

from serverfree.scsi.sense import Asc
from support import peers

pytestmark = pytest.mark.peer

# Names that sg3_utils words otherwise, or (the last) does not know yet.
OTHERWISE = {
    Asc.UNEXPECTED_UNSOLICITED_DATA: "Write error - unexpected unsolicited data",
    Asc.NOT_ENOUGH_UNSOLICITED_DATA: "Write error - not enough unsolicited data",
    Asc.ORWRITE_GENERATION_DOES_NOT_MATCH: "ASC=10, ASCQ=08 (hex)",
}


def letters(text: str) -> str:
    return "".join(each for each in text.lower() if each.isalnum())


def test_codes_have_their_names() -> None:
    peers.require("sg_decode_sense")
    program = str(peers.find("sg_decode_sense"))
    wrong = {}
    for code in Asc:
        sense = bytes.fromhex("70 00 05 00 00 00 00 0a 00 00 00 00") + code.to_bytes(2, "big")
        arguments = [f"{byte:02x}" for byte in sense + bytes(4)]
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        if letters(OTHERWISE.get(code, code.name)) not in letters(done.stdout):
            wrong[code.name] = done.stdout
    assert wrong == {}
    assert len(Asc) > 90
