"""The configuration file: what it means, and where it says that something is wrong."""

import os
import re
from pathlib import Path

import pytest

from serverfree.iscsi.names import Portal
from serverfree.target.access import LunMapping
from serverfree.target.config import Config, ConfigError, DiskConfig, TapeConfig
from serverfree.target.config_file import load

IQN = "iqn.2026-11.com.example:storage"
MINIMAL = f'[[target]]\niqn = "{IQN}"\n[[target.disk]]\nname = "d"\npath = "d.img"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, secret in (("alice", "opensesame-alice"), ("store", "the-target-proof")):
        path = tmp_path / f"{name}.secret"
        path.write_text(f"{secret}\n")
        path.chmod(0o600)
    return tmp_path


def read(folder: Path, text: str) -> Config:
    path = folder / "storage.toml"
    path.write_text(text)
    return load(path)


def disk(name: str, path: Path, **options: str | None) -> DiskConfig:
    """What the command line makes of the same words."""
    return DiskConfig.make(name, path, options, where="")


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "storage.toml"))
    return message.removeprefix(str(folder / "storage.toml")).lstrip(": ")


def test_the_least_that_can_be_served(folder):
    config = read(folder, MINIMAL)
    [target] = config.targets
    assert target.units == {0: disk("d", folder / "d.img")}
    assert config.portals == (Portal("127.0.0.1", 3260),)
    assert [entry.initiator for entry in target.publication.access] == ["*"]
    assert config.discovery is None


def test_everything_that_can_be_said(folder):
    config = read(
        folder,
        f"""
[server]
portals = ["127.0.0.1:3260", "[::1]:3261,2"]
advertise = ["192.0.2.1:3260"]
discovery_account = "alice"
[limits]
login_timeout = 5
sessions = 7
[account.alice]
secret_file = "alice.secret"
target_user = "store"
target_secret_file = "store.secret"
[[target]]
iqn = "{IQN.upper()}"
alias = "a store"
portal_groups = [2]
account = "alice"
[[target.disk]]
name = "data"
path = "/srv/data.img"
size = "1GiB"
block = 4096
thin = true
readonly = false
lun = 5
[[target.disk]]
name = "more"
path = "more.img"
size = 1048576
[[target.tape]]
name = "drive"
path = "cartridge"
capacity = "4GiB"
[[target.access]]
initiator = "iqn.1993-08.org.debian:01:*"
read_only = true
[[target.access]]
initiator = "iqn.2026-11.com.example:host"
luns = [{{ lun = 9, unit = "data" }}, {{ lun = 0, unit = "drive", read_only = true }}]
[[target]]
iqn = "iqn.2026-11.com.example:gone"
redirect = {{ portal = "192.0.2.9:3260", permanent = true }}
[[datamover]]
iqn = "iqn.2026-11.com.example:mover"
reach = ["127.0.0.1:3260"]
reach_account = "alice"
""",
    )
    storage, gone = config.targets
    assert storage.iqn == IQN
    assert storage.units == {
        0: disk("more", folder / "more.img", size="1MiB"),
        1: TapeConfig.make("drive", folder / "cartridge", {"capacity": "4GiB"}, where=""),
        5: disk("data", Path("/srv/data.img"), size="1GiB", block="4096", thin=None),
    }
    any_debian, host = storage.publication.access
    assert (any_debian.initiator, any_debian.luns, any_debian.read_only) == (
        "iqn.1993-08.org.debian:01:*",
        None,
        True,
    )
    assert host.luns == (LunMapping(9, "data"), LunMapping(0, "drive", read_only=True))
    for entry in (any_debian, host):
        assert entry.account.credentials.name == "alice"
        assert entry.account.credentials.secret == b"opensesame-alice"
        assert entry.account.mutual.secret == b"the-target-proof"
    assert storage.publication.alias == "a store"
    assert storage.publication.groups == {2}
    assert gone.publication.redirect.portal == Portal("192.0.2.9", 3260)
    assert gone.publication.redirect.permanent
    [mover] = config.movers
    assert mover.login.credentials.name == "alice"
    assert mover.login.mutual.name == "store"
    assert config.portals == (Portal("127.0.0.1", 3260, 1), Portal("::1", 3261, 2))
    assert config.advertise == (Portal("192.0.2.1", 3260),)
    assert (config.limits.login_timeout, config.limits.sessions) == (5, 7)
    assert config.limits.connections == 1024
    assert config.discovery.credentials.name == "alice"


ACCOUNT = '[account.alice]\nsecret_file = "alice.secret"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither a [[target]] nor a [[datamover]]"),
        ("= 1", "Invalid statement (at line 1, column 1)"),
        ("nonsense = 1\n" + MINIMAL, "nonsense: no such setting; there are account, datamover"),
        ("[server]\nportals = 3260\n" + MINIMAL, "server.portals: a list of texts; found 3260"),
        ("[server]\nportals = []\n" + MINIMAL, "server.portals: at least one; found []"),
        ('[server]\nportals = ["a:b"]\n' + MINIMAL, "server.portals[0]: 'a:b' is not HOST:PORT"),
        ("[server]\nport = 1\n" + MINIMAL, "server.port: no such setting; there are advertise, "),
        (
            "[limits]\nsessions = 0\n" + MINIMAL,
            "limits.sessions: a number from 1 to 65535; found 0",
        ),
        ("[limits]\nsessions = true\n" + MINIMAL, "limits.sessions: a number from 1 to 65535; "),
        ('[[target]]\niqn = "storage"', "target[0].iqn: 'storage' is not an iqn., eui. or naa."),
        ("[[target]]\n", "target[0].iqn is missing"),
        (f'[[target]]\niqn = "{IQN}"', "target[0].disk: a target needs a disk, a tape or a redi"),
        (MINIMAL + MINIMAL, f"two targets are named {IQN}"),
        (MINIMAL + 'size = "potato"', "target[0].disk[0] d: size: "),
        (MINIMAL + "block = 1000", "target[0].disk[0] d: block=1000; it can be 512 or 4096"),
        (MINIMAL + "thick = true", "target[0].disk[0] d: option 'thick' is unknown or said twice"),
        (MINIMAL + "thin = 1.5", "target[0].disk[0].thin: a text, a number, true or false; fo"),
        (MINIMAL + "lun = 16384", "target[0].disk[0].lun: a number from 0 to 16383; found 16384"),
        (
            MINIMAL + '[[target.disk]]\nname = "d"\npath = "e.img"',
            "target[0].disk[1].name: a name that no other unit of the target has; found 'd'",
        ),
        (
            MINIMAL + 'lun = 3\n[[target.disk]]\nname = "e"\npath = "e.img"\nlun = 3',
            "target[0].disk[1].lun: a LUN that no other unit of the target has; found 3",
        ),
        (MINIMAL + "[[target.access]]\n", "target[0].access[0].initiator is missing"),
        (
            MINIMAL + '[[target.access]]\ninitiator = "iqn.*:a*"',
            "target[0].access[0].initiator: 'iqn.*:a*': the * stands for the end of a name only",
        ),
        (
            MINIMAL + '[[target.access]]\ninitiator = "*"\nluns = [{lun = 0, unit = "x"}]',
            "target[0].access[0].luns[0].unit: the name of a unit of the target (d); found 'x'",
        ),
        (
            MINIMAL + '[[target.access]]\ninitiator = "*"\naccount = "bob"',
            "target[0].access[0].account: the name of an [account.NAME] (there are: none); found",
        ),
        (
            MINIMAL.replace("[[target.disk]]", "portal_groups = [4]\n[[target.disk]]"),
            "target[0].portal_groups: portal groups of server.portals (1); found 4",
        ),
        ("[account.alice]\n" + MINIMAL, "account.alice.secret_file: give secret_file = PATH or"),
        (
            ACCOUNT + 'secret = "opensesame"\n' + MINIMAL,
            "account.alice.secret: no such setting; there are secret_env, secret_file, ",
        ),
        (
            ACCOUNT + 'target_user = "x"\ntarget_secret_file = "alice.secret"\n' + MINIMAL,
            "account.alice.target_user: CHAP needs a secret for each direction, and these are the",
        ),
        ('[[datamover]]\niqn = "iqn.2026-11.com.example:m"', "datamover[0].reach is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_may_be(folder, text, said):
    message = complaint(folder, text)
    assert message.startswith(said)
    assert "opensesame" not in message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666, 0o620, 0o601])
def test_a_secret_that_others_can_read_is_not_taken(folder, mode):
    (folder / "alice.secret").chmod(mode)
    message = complaint(folder, ACCOUNT + MINIMAL)
    assert message.startswith("account.alice.secret_file: secret file ")
    assert f"is open to others (mode {mode:04o}): chmod 600 it" in message


def test_secrets_from_the_environment(folder, monkeypatch):
    text = '[account.alice]\nsecret_env = "ALICE_SECRET"\n' + MINIMAL
    assert "variable ALICE_SECRET is not set" in complaint(folder, text)
    monkeypatch.setenv("ALICE_SECRET", "short")
    message = complaint(folder, text)
    assert "it needs 12 to 256" in message
    assert "short" not in message
    monkeypatch.setenv("ALICE_SECRET", "long enough for it")
    read(folder, text)


@pytest.mark.parametrize("what", ["missing", "folder", "pipe"])
def test_what_is_no_secret_file(folder, what):
    path = folder / "alice.secret"
    path.unlink()
    if what == "folder":
        path.mkdir()
    if what == "pipe":
        os.mkfifo(path, 0o600)
    assert complaint(folder, ACCOUNT + MINIMAL).startswith("account.alice.secret_file: secret file")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml: No such file"):
        load(tmp_path / "nothing.toml")


def test_the_example_of_the_readme(tmp_path):
    readme = Path(__file__).parents[2] / "README.md"
    [example] = re.findall(r"```toml\n(.*?)```", readme.read_text(), re.DOTALL)
    for name in ("backup", "storage"):
        path = tmp_path / f"{name}.secret"
        path.write_text(f"the secret of {name}\n")
        path.chmod(0o600)
    config = read(tmp_path, example)
    storage, library, moved = config.targets
    assert [unit.name for unit in storage.units.values()] == ["data", "archive"]
    assert list(storage.units) == [0, 7]
    assert len(storage.publication.access) == 2
    assert library.publication.groups == {2}
    assert moved.publication.redirect.permanent
    [mover] = config.movers
    assert mover.login.credentials == config.discovery.credentials
