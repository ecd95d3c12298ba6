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
