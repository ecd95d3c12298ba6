"""Wrong arguments of the backup verbs: exit code 2 and a line that says why, before any I/O."""

import pytest

from serverfree.cli.main import main

UNIT = "iscsi://127.0.0.1:1/iqn.2026-11.com.example:x/0"
BACKUP = ("backup", "--disk", UNIT, "--tape", UNIT, "--mover", UNIT)
ARRAY = ("--array", "http://127.0.0.1:1")
SNAPSHOT = ("snapshot", "create", *ARRAY, "disk")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((*BACKUP, "--no-snapshot", "--tape-block", "0"), "a whole number of 512 bytes"),
        ((*BACKUP, "--no-snapshot", "--tape-block", "1000"), "a whole number of 512 bytes"),
        ((*BACKUP, "--no-snapshot", "--name", ""), "printable characters"),
        ((*BACKUP, "--no-snapshot", "--name", "../../x"), "no /"),
        ((*BACKUP, "--no-snapshot", "--name", "a\nb"), "printable characters"),
        ((*BACKUP, *ARRAY, "--consistency", "fs"), "takes a --before command"),
        ((*BACKUP, *ARRAY, "--incremental", "--overwrite-tape"), "--overwrite-tape would lose"),
        ((*SNAPSHOT, "--consistency", "app"), "takes a --before command"),
        (("backups", "--forget"), "which backup to forget"),
    ],
)
def test_wrong_usage(words, why, monkeypatch, capsys):
    monkeypatch.setenv("SERVERFREE_TOKEN", "token")
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [(*BACKUP, *ARRAY), SNAPSHOT, ("snapshot", "list", *ARRAY)],
    ids=["backup", "snapshot create", "snapshot list"],
)
def test_without_the_token_nothing_is_contacted(words, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("SERVERFREE_TOKEN", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", None)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"serverfree {words[0]}: SERVERFREE_TOKEN is not set")
    assert not list(tmp_path.iterdir())


def test_without_a_snapshot_no_token_is_asked_for(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("SERVERFREE_TOKEN", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main((*BACKUP, "--no-snapshot")) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
