"""ROD tokens between initiators and a target, each in a process of its own."""

import json

import pytest

from serverfree.cli.main import main
from serverfree.initiator.commands.common import unit_of
from serverfree.initiator.copy import CopyManager
from serverfree.initiator.disk import Disk
from serverfree.iscsi.names import Url
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.rod_token import ZERO_TOKEN, RodType
from support import servers

pytestmark = pytest.mark.served
MIB = 1 << 20
BLOCKS = 24 * MIB // 512


@pytest.fixture(scope="module")
def san(tmp_path_factory):
    folder = tmp_path_factory.mktemp("san")
    servers.random_file(folder / "one.img", 24 * MIB)
    with servers.target(
        *("--disk", f"one={folder / 'one.img'}"),
        *("--disk", f"two={folder / 'two.img'},size=24MiB,block=4096"),
    ) as storage:
        yield folder, Url.parse(storage["one"].url), Url.parse(storage["two"].url)


def test_a_point_in_time_goes_from_disk_to_disk(san) -> None:
    folder, one, two = san
    before = (folder / "one.img").read_bytes()
    with unit_of(one) as first, unit_of(two) as second:
        token = CopyManager(first).populate_token(
            [(8, BLOCKS - 8), (0, 8)], rod_type=RodType.PERSISTENT, inactivity=600
        )
        Disk(first).write(0, bytes(4 * MIB))
        copies = CopyManager(second)
        half = BLOCKS // 16
        assert (
            copies.write_using_token(token, [(half, half), (0, half)], delete=True) == BLOCKS // 8
        )
        with pytest.raises(CheckCondition) as gone:
            copies.write_using_token(token, [(0, 1)])
        assert gone.value.sense.asc == 0x2309
    after = (folder / "two.img").read_bytes()
    stream = before[4096:] + before[:4096]
    assert after[12 * MIB :] + after[: 12 * MIB] == stream
    assert (folder / "one.img").read_bytes()[: 4 * MIB] == bytes(4 * MIB)


def test_zeros_and_what_is_told(san, capsys: pytest.CaptureFixture[str]) -> None:
    folder, one, two = san
    with unit_of(one) as first, unit_of(two) as second:
        CopyManager(first).populate_token([(0, 100)])
        assert CopyManager(second).write_using_token(ZERO_TOKEN, [(0, 1024)]) == 1024
    assert not any((folder / "two.img").read_bytes()[: 4 * MIB])
    assert main(["copy-results", "--mover", str(one), "all-tokens", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)["tokens"]
    assert told["rod_type"] == "00800001h change vulnerable"
    assert told["bytes_represented"] == 51200
    assert main(["copy-results", "--mover", str(one), "capabilities", "--json"]) == 0
    capabilities = json.loads(capsys.readouterr().out)
    assert capabilities["rod_types"]["00800002h persistent"] == [
        "internal",
        "token in",
        "token out",
    ]
    assert capabilities["maximum_token_ranges"] == 1024
    assert "FEh rod CSCD" in capabilities["descriptor_types"]


def test_a_point_in_time_for_a_token_is_nobodys_lun_and_does_not_outlive_its_process(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers.random_file(tmp_path / "one.img", MIB)
    with servers.target("--disk", f"one={tmp_path / 'one.img'}") as storage:
        with unit_of(Url.parse(storage["one"].url)) as unit:
            CopyManager(unit).populate_token([(0, 100)], rod_type=RodType.PERSISTENT)
            Disk(unit).write(0, bytes(4096))
        assert main(["luns", storage["one"].url, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 1
        kept = {path.name for path in (tmp_path / "one.img.snapshots").rglob("*")}
        storage.kill()
        storage.start()
        assert list(storage.units) == ["one"]
        with unit_of(Url.parse(storage["one"].url)) as unit:
            assert CopyManager(unit).response("all-tokens") == bytes.fromhex("00000004 00000000")
        left = {path.name for path in (tmp_path / "one.img.snapshots").rglob("*")}
        assert len(left) < len(kept), (kept, left)
