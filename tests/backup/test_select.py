"""Choosing files by path and pattern, against choices made by hand."""

import pytest

from serverfree.backup.files import File
from serverfree.backup.select import NothingMatches, Selection

PATHS = ("a.txt", "docs", "docs/b.txt", "docs/sub/c.TXT", "docs/sub/d.bin", "docs2/e.txt")


def chosen(paths: tuple[str, ...] = (), excludes: tuple[str, ...] = ()) -> list[str]:
    selection = Selection(paths, excludes)
    return [path for path in PATHS if selection.takes(path)]


def test_nothing_asked_for_is_everything() -> None:
    assert chosen() == list(PATHS)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("docs", ["docs", "docs/b.txt", "docs/sub/c.TXT", "docs/sub/d.bin"]),
        ("/docs/", ["docs", "docs/b.txt", "docs/sub/c.TXT", "docs/sub/d.bin"]),
        ("DOCS\\sub", ["docs/sub/c.TXT", "docs/sub/d.bin"]),
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "docs/b.txt", "docs/sub/c.TXT", "docs2/e.txt"]),
        ("docs/*.txt", ["docs/b.txt"]),
        ("docs?", ["docs2/e.txt"]),
        ("docs/**", ["docs/b.txt", "docs/sub/c.TXT", "docs/sub/d.bin"]),
        ("a[t]xt", []),
    ],
)
def test_a_path_stands_for_what_is_in_it(path: str, expected: list[str]) -> None:
    assert chosen((path,)) == expected


def test_an_exclusion_without_a_slash_is_a_name_anywhere() -> None:
    assert chosen(excludes=("*.txt",)) == ["docs", "docs/sub/d.bin"]
    assert chosen(excludes=("sub",)) == ["a.txt", "docs", "docs/b.txt", "docs2/e.txt"]


def test_an_exclusion_with_a_slash_is_a_path_from_the_root() -> None:
    assert chosen(("docs",), ("docs/sub/*.bin",)) == ["docs", "docs/b.txt", "docs/sub/c.TXT"]
    assert "a.txt" not in chosen(excludes=("/a.txt",))


def test_a_hard_link_keeps_the_paths_that_were_chosen() -> None:
    file = File(30, 1, False, ("a.txt", "docs/link", "docs/other"), 0)
    assert [each.paths for each in Selection(["docs"]).of([file])] == [("docs/link", "docs/other")]
    assert list(Selection(["else"]).of([file])) == []


def test_a_path_that_is_not_there_is_named() -> None:
    selection = Selection(["docs", "absent", "*.doc"])
    for path in PATHS:
        selection.takes(path)
    with pytest.raises(NothingMatches, match=r"'absent', '\*.doc'"):
        selection.check_all_met()
