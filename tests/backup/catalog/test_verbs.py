"""`serverfree backups`, `ls`, `find` and `scan` as they are typed."""

import json
import re

import pytest

from serverfree.backup.archive.member import Data, Kind, Member
from serverfree.backup.catalog.facts import BackupFacts, Mode
from serverfree.backup.catalog.store import Catalog
from serverfree.cli.main import main

UUID = "0a1b2c3d-1111-4222-8333-444444444444"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def backup(home):
    with Catalog.open() as catalog:
        writer = catalog.begin(
            BackupFacts(
                name="Daten", mode=Mode.FILES, created=1_790_000_000 * 10**9, uuid=UUID,
                medium_serial="CART1", file=2, first_block=10, tape_block=4096, consistency="fs",
            )
        )  # fmt: skip
        writer.add_members(
            (
                Member("Users", Kind.DIRECTORY, end_offset=1024),
                Member("Users/a.txt", Kind.FILE, 2048, 10**18, data=(Data(0, 2048, 9000),)),
                Member("Users/a.txt", Kind.FILE, 4, stream="s"),
                Member("deep/er/\x1b[31mred\udc80", Kind.FILE, 1, damage="torn"),
                Member("b", Kind.HARD_LINK, link_target="Users/a.txt"),
            )
        )
        writer.warn("the volume is dirty")
        return writer.finish({"moved_bytes": 2048}, blocks=3, size=3 << 20)


def run(capsys, *words):
    """Return exit code, output and errors."""
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_backups_of_an_empty_catalog(capsys):
    assert run(capsys, "backups") == (0, "the catalog is empty\n", "")
    assert json.loads(run(capsys, "backups", "--json")[1]) == []


def test_backups_as_a_table_and_as_json(capsys, backup):
    code, out, _ = run(capsys, "backups")
    assert code == 0
    assert lines(out)[1] == "0a1b2c3d 2026-09-21 14:13 files done 3 MiB CART1 2 fs all Daten"
    (facts,) = json.loads(run(capsys, "backups", "--json")[1])
    assert (facts["backup"], facts["state"], facts["created"]) == (
        "0a1b2c3d", "done", "2026-09-21T14:13:20Z",
    )  # fmt: skip
    assert facts["report"] == {"moved_bytes": 2048}
    assert facts["warnings"] == ["the volume is dirty"]
    _, out, _ = run(capsys, "backups", "0a1")
    assert "warning the volume is dirty" in lines(out)
    assert "report: moved bytes 2048" in lines(out)


def test_ls_shows_a_folder_and_those_that_have_no_member(capsys, backup):
    code, out, _ = run(capsys, "ls", "0a1b")
    assert code == 0
    assert lines(out)[1:] == ["d - - deep/", "d - 1970-01-01 00:00 Users/",
                              "h 0 B 1970-01-01 00:00 b -> Users/a.txt"]  # fmt: skip
    _, out, _ = run(capsys, "ls", "latest", "users")
    assert lines(out)[1:] == ["- 2 KiB 2001-09-09 01:46 Users/a.txt",
                              "- 4 B 1970-01-01 00:00 Users/a.txt:s"]  # fmt: skip
    facts = json.loads(run(capsys, "ls", "latest", "--json", "-r")[1])
    assert [each["path"] for each in facts][:2] == ["Users", "Users/a.txt"]


def test_ls_tells_where_on_the_tape(capsys, backup):
    _, out, _ = run(capsys, "ls", "latest", "Users/a.txt", "--where")
    assert lines(out)[1:] == ["CART1 0 12 808 0 2048 Users/a.txt"]
    facts = json.loads(run(capsys, "ls", "latest", "Users/a.txt", "--where", "--json")[1])
    assert facts[0]["where"] == [
        {"tape": "CART1", "partition": 0, "block": 12, "byte": 808, "start": 0, "length": 2048}
    ]


def test_a_long_path_widens_no_other_line(capsys, backup):
    _, before, _ = run(capsys, "ls", "latest", "-r")
    with Catalog.open() as catalog:
        writer = catalog.begin(
            BackupFacts(name="long", mode=Mode.FILES, created=1, uuid=UUID[1:] + "0")
        )
        writer.add_members([Member(f"Users/{'a long name ' * 20}", Kind.FILE, 2048)])
        writer.finish({}, blocks=1, size=1)
    code, out, _ = run(capsys, "find", "*a*")
    assert code == 0
    rows = [re.split("  +", line, maxsplit=5) for line in out.splitlines()]
    assert {len(row) for row in rows} == {6}, "cells are set apart by two blanks and never empty"
    assert rows[1][-1] == f"Users/{'a long name ' * 20}"
    assert all(line == line.rstrip() for line in before.splitlines())


def test_names_that_a_terminal_would_obey_are_escaped(capsys, backup):
    _, out, _ = run(capsys, "find", "*red*")
    assert "\x1b" not in out
    assert r"deep/er/\x1b[31mred\udc80" in out


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [("A.TXT", ["Users/a.txt"]), ("a.txt*", ["Users/a.txt", "Users/a.txt:s"]),
     ("users/*.txt", ["Users/a.txt"]), ("nothing", [])],
)  # fmt: skip
def test_find(capsys, backup, pattern, paths):
    code, out, _ = run(capsys, "find", pattern, "--json")
    found = [f"{e['path']}:{e['stream']}" if e["stream"] else e["path"] for e in json.loads(out)]
    assert (found, code) == (paths, 0 if paths else 1)
    code, out, _ = run(capsys, "find", pattern, "--backup", "latest")
    assert [line.split()[-1] for line in out.splitlines()[1:]] == paths


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ls", "ffff"], "no backup ffff: the newest are 0a1b2c3d"),
        (["ls", "0a1b", "Users/b"], "has no 'Users/b'"),
        (["find", "x", "--backup", "zz"], "8 hexadecimal digits"),
        (["backups", "--catalog", "/proc/nothing/here"], "/proc/nothing"),
    ],
)
def test_what_is_not_there_is_one_line(capsys, backup, words, said):
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1


def test_another_catalog_by_its_file(capsys, backup, tmp_path):
    another = tmp_path / "another.sqlite"
    code, out, err = run(capsys, "backups", "--catalog", str(another))
    assert (code, out) == (1, "")
    assert f"there is no catalog {another}" in err
    assert not another.exists(), "a word mistyped makes no file"
    Catalog.open(another).close()
    assert run(capsys, "backups", "--catalog", str(another))[1] == "the catalog is empty\n"


def test_a_backup_is_forgotten_by_its_id(capsys, backup):
    code, out, _ = run(capsys, "backups", "0a1b2c3d", "--forget", "--json")
    assert (code, json.loads(out)[0]["backup"]) == (0, "0a1b2c3d")
    assert run(capsys, "backups")[1] == "the catalog is empty\n"
