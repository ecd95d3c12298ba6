"""What a disk's settings say of its snapshots, on the command line and in a configuration file."""

from pathlib import Path

import pytest

from serverfree.target.backstore.state import snapshot_folder
from serverfree.target.config import ConfigError, DiskConfig
from serverfree.target.config_file import load


def test_without_a_word_a_snapshot_waits_for_3_seconds_and_80_at_the_most():
    disk = DiskConfig.parse("data=/srv/data.img")
    assert (disk.quiet, disk.quiet_timeout, disk.snapshots, disk.chunk) == (3, 80, None, 65536)


def test_all_of_it_can_be_said_on_the_command_line():
    disk = DiskConfig.parse("d=/srv/d.img,quiet=0.5,quiet-timeout=7,snapshots=/snap,chunk=4KiB")
    assert (disk.quiet, disk.quiet_timeout) == (0.5, 7)
    assert (disk.snapshots, disk.chunk) == (Path("/snap"), 4096)


@pytest.mark.parametrize(
    "option",
    [
        "quiet=-1", "quiet=soon", "quiet=nan", "quiet=inf", "quiet=86401", "quiet", "quiet=",
        "quiet-timeout=-0.1", "quiet-timeout=1e9", "quiet_timeout=1",
        "snapshots", "snapshots=", "snapshots=/srv/data.img",
        "chunk=2KiB", "chunk=2MiB", "chunk=65537", "chunk=many",
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_name(option):
    with pytest.raises(ConfigError, match=option.partition("=")[0]):
        DiskConfig.parse(f"data=/srv/data.img,{option}")


def test_all_of_it_can_be_said_in_a_file_and_paths_are_relative_to_it(tmp_path):
    path = tmp_path / "served.toml"
    path.write_text(
        '[server]\napi = "[::1]:0"\n[[target]]\niqn = "iqn.2026-11.com.example:a"\n'
        '[[target.disk]]\nname = "data"\npath = "data.img"\n'
        'quiet = 1.5\nquiet-timeout = 10\nsnapshots = "kept"\nchunk = "1MiB"\n'
    )
    config = load(path)
    disk = config.targets[0].units[0]
    assert isinstance(disk, DiskConfig)
    assert (disk.quiet, disk.quiet_timeout) == (1.5, 10)
    assert (disk.snapshots, disk.chunk) == (tmp_path / "kept", 1 << 20)
    assert config.api is not None
    assert (config.api.host, config.api.port) == ("::1", 0)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ('api = "0.0.0.0:8260"', "server.api: 0.0.0.0 is not this machine's loopback"),
        ("api = 8260", "server.api"),
        ('api = "127.0.0.1:http"', "server.api"),
        ('api = "127.0.0.1:0"\napi_public = "yes"', "server.api_public"),
    ],
)
def test_an_address_of_the_api_that_cannot_be_is_refused(tmp_path, server, said):
    path = tmp_path / "served.toml"
    path.write_text(f"[server]\n{server}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in str(caught.value)


def test_snapshots_lie_beside_the_file_and_a_devices_under_the_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert snapshot_folder(Path("/srv/a.img")) == Path("/srv/a.img.snapshots")
    assert snapshot_folder(Path("/srv/a.img"), Path("/x")) == Path("/x/a.img.snapshots")
    monkeypatch.setattr(Path, "is_block_device", lambda path: True)
    assert snapshot_folder(Path("/dev/sdx")) == tmp_path / "serverfree" / "dev-sdx.snapshots"
