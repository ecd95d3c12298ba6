"""Files restored to a folder: what they hold, and that nothing lands outside of it."""

import os

import pytest

from serverfree.backup.restore.archive_bytes import ArchiveBytes
from serverfree.backup.restore.folder import restore_to_folder
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.wanted import Piece, WantedFile, WantedStream
from serverfree.backup.watching import Watcher


class Source:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


ARCHIVE = bytes(range(256)) * 16


def restored(folder, *files, overwrite=False):
    report = RestoreReport()
    archive = ArchiveBytes(Source(ARCHIVE), len(ARCHIVE))
    restore_to_folder(folder, files, archive, report, Watcher(), overwrite=overwrite)
    return report


def file(path, *streams, links=()):
    return WantedFile((path, *links), False, 1_000_000_000_000_000_000, streams)


def test_pieces_holes_and_what_is_not_valid(tmp_path):
    stream = WantedStream("", 1000, 300, None, (Piece(0, 100, 16), Piece(200, 200, 512)))
    report = restored(tmp_path, file("a/b/c", stream))
    wanted = ARCHIVE[16:116] + bytes(100) + ARCHIVE[512:612] + bytes(700)
    assert (tmp_path / "a/b/c").read_bytes() == wanted
    assert (tmp_path / "a/b/c").stat().st_mtime == 1_000_000_000
    assert report.server_reasons == {"to a folder": 200}


def test_streams_lie_beside_their_file_and_links_are_links(tmp_path):
    streams = WantedStream("", 3, 3, b"abc"), WantedStream("more", 2, 2, b"xy")
    restored(tmp_path, file("f", *streams, links=("d/g",)))
    assert (tmp_path / "f:more").read_bytes() == b"xy"
    assert (tmp_path / "d/g").samefile(tmp_path / "f")


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/out", "a//b", ".", "a/./b", "nul\0"])
def test_no_path_leads_out(tmp_path, path):
    inside = tmp_path / "inside"
    report = restored(inside, file(path, WantedStream("", 1, 1, b"x")))
    assert len(report.skipped) == 1
    assert list(tmp_path.iterdir()) == [inside]
    assert not list(inside.iterdir())


def test_no_symbolic_link_leads_out(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "file").symlink_to(outside / "file")
    content = WantedStream("", 1, 1, b"x")
    report = restored(inside, file("link/f", content), file("file", content), overwrite=True)
    assert [each.partition(":")[0] for each in report.skipped] == ["link/f"]
    assert not list(outside.iterdir())
    assert (inside / "file").read_bytes() == b"x"
    assert not (inside / "file").is_symlink()


def test_what_is_there_stays_unless_it_is_to_be_overwritten(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    new = file("f", WantedStream("", 3, 3, b"new"))
    report = restored(tmp_path, new)
    assert report.skipped == [f"f: {os.strerror(17)}"]
    assert (tmp_path / "f").read_bytes() == b"old"
    restored(tmp_path, new, overwrite=True)
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_file_that_cannot_be_had_is_told_and_the_rest_goes_on(tmp_path):
    lost = file("lost", WantedStream("", 9, 9, b"x"))
    lost.why_not = "encrypted"
    report = restored(tmp_path, lost, file("kept", WantedStream("", 1, 1, b"x")))
    assert report.skipped == ["lost: encrypted"]
    assert (tmp_path / "kept").exists()
