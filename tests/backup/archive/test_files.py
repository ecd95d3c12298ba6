"""Files as members: read back by our reader, by Python's tarfile, and byte by byte by hand."""

import hashlib
import io
import tarfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serverfree.backup.archive.files import FileMembers, in_tape_order
from serverfree.backup.archive.member import Kind, Reason
from serverfree.backup.archive.read import ArchiveReader
from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.files import Extent, File, Stream
from serverfree.backup.pieces import FromDisk, Inline
from support.archives import archive_of, content_of, members_of, put_together, true_content

CLUSTER = 512
DISK = hashlib.shake_128(b"volume").digest(1 << 18)
START = 4096
WHEN = 1_700_000_000_123_456_700


def file(number, path, *streams, more=(), directory=False, modified=WHEN, **attributes) -> File:
    return File(number, 3, directory, (path, *more), modified, streams, attributes)


def resident(content: bytes, name: str = "") -> Stream:
    return Stream(name, len(content), len(content), resident=content)


NAMES = st.text(
    st.characters(exclude_characters="/\0:", min_codepoint=1), min_size=1, max_size=60
).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)


@st.composite
def streams(draw):
    """Clusters anywhere, holes between them, valid data ending anywhere."""
    extents, at = [], 0
    for _ in range(draw(st.integers(0, 6))):
        at += draw(st.sampled_from([0, 0, 1, 7])) * CLUSTER
        length = draw(st.integers(1, 5)) * CLUSTER
        place = draw(st.integers(0, (len(DISK) - START - length) // CLUSTER)) * CLUSTER
        extents.append(Extent(at, length, place))
        at += length
    at += draw(st.sampled_from([0, 0, 9])) * CLUSTER
    size = draw(st.integers(max(0, at - CLUSTER + 1), at)) if at else 0
    valid = draw(st.one_of(st.just(size), st.integers(0, size)))
    return Stream("", size, valid, extents=tuple(extents))


def as_tarfile_has_it(path: str) -> str:
    """Return a name as Python's reader shows it: half a surrogate pair as three odd bytes."""
    return path.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


class TestAnyFile:
    @settings(max_examples=40, deadline=None)
    @example({"\ud800": Stream("", 0, 0)}, 0, 0, {})
    @given(
        st.dictionaries(PATHS, streams(), min_size=1, max_size=4),
        st.integers(-(9 * 10**9), 9 * 10**9),
        st.integers(0, 10**9 - 1),
        st.dictionaries(st.sampled_from(["ntfs_acl", "ntfs_times", "ntfs_ea"]), st.binary()),
    )
    def test_readers_find_what_the_facts_say(self, contents, seconds, fraction, attributes):
        modified = seconds * 10**9 + fraction
        files = [
            file(number, path, stream, modified=modified, **attributes)
            for number, (path, stream) in enumerate(contents.items())
        ]
        archive, written, skipped = archive_of(files, DISK, start=START, catalog=b"catalog")
        assert not skipped
        read = members_of(archive)
        assert read == written
        for member in read[:-1]:
            stream = contents[member.path]
            assert content_of(member, archive) == true_content(stream, DISK, START)
            assert member.modified == modified
            assert member.attributes == attributes
        named = {as_tarfile_has_it(path): stream for path, stream in contents.items()}
        with tarfile.open(fileobj=io.BytesIO(archive), encoding="utf-8") as tar:
            for entry in tar:
                if entry.name in named:
                    expected = true_content(named[entry.name], DISK, START)
                    assert tar.extractfile(entry).read() == expected
                    assert abs(float(entry.mtime) - modified / 10**9) < 1e-3
            assert {entry.name for entry in tar} == {
                *named,
                ".serverfree/catalog-test.sqlite.zst",
            }

    @given(st.lists(st.integers(0, 0x10FFFF).map(chr), min_size=1, max_size=30).map("".join))
    def test_halves_of_surrogate_pairs_are_names_like_others(self, name):
        # chr() gives halves of pairs too, which NTFS does not mind.
        if "/" in name or "\0" in name or name in (".", ".."):
            return
        name = name.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        archive, written, _ = archive_of([file(9, name)], DISK)
        assert [member.path for member in members_of(archive)] == [name]
        assert written[0].path == name


def test_content_begins_and_ends_on_blocks_of_512():
    files = [file(1, "a", resident(b"x" * 700)), file(2, "b", resident(b"y" * 512))]
    archive, members, _ = archive_of(files, DISK)
    for member in members:
        assert member.header_offset % 512 == member.end_offset % 512 == 0
        assert all(data.archive_offset % 512 == 0 for data in member.data)
    assert archive[members[0].data[0].archive_offset :][:1024] == b"x" * 700 + bytes(324)


def test_only_valid_data_leaves_the_disk():
    stream = Stream("", 3000, 700, extents=(Extent(0, 3072, 1024),))
    writer = ArchiveWriter()
    made = FileMembers(writer, START, lambda file, stream: iter(()))
    ((member, pieces),) = made.members([file(1, "a", stream)])
    moved = [piece for piece in pieces if isinstance(piece, FromDisk)]
    assert moved == [FromDisk(START + 1024, 700)]
    assert [(data.start, data.length) for data in member.data] == [(0, 700)]


def test_a_stream_follows_its_file_and_a_further_name_is_a_link():
    document = file(
        40,
        "folder/document",
        resident(b"text"),
        resident(b"zone", "Zone.Identifier"),
        more=("further/name", "ü"),
        ntfs_acl=b"\1\0\4\x80",
    )
    archive, _, _ = archive_of([document], DISK)
    main, zone, *links = members_of(archive)
    assert (main.path, main.kind, main.attributes) == (
        "folder/document",
        Kind.FILE,
        {"ntfs_acl": b"\1\0\4\x80"},
    )
    assert (zone.path, zone.stream, zone.attributes) == ("folder/document", "Zone.Identifier", {})
    assert (main.server_bytes, main.reason) == (4, Reason.RESIDENT)
    assert [(link.path, link.link_target) for link in links] == [
        ("further/name", "folder/document"),
        ("ü", "folder/document"),
    ]
    assert {(each.number, each.sequence) for each in (main, zone, *links)} == {(40, 3)}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == [
            "folder/document",
            "folder/document:Zone.Identifier",
            "further/name",
            "ü",
        ]
        assert tar.extractfile("ü").read() == b"text"


def test_a_colon_in_a_name_makes_no_stream():
    archive, written, _ = archive_of([file(1, "a:b", resident(b"x"))], DISK)
    (member,) = members_of(archive)
    assert (member.path, member.stream) == ("a:b", "")
    assert [member] == written


def test_the_root_has_attributes_and_streams_too():
    root = file(5, "", resident(b"icon", "favicon"), directory=True, ntfs_attrib=b"\x16\0\0\0")
    archive, _, _ = archive_of([root], DISK)
    folder, stream = members_of(archive)
    assert (folder.path, folder.kind) == ("", Kind.DIRECTORY)
    assert folder.attributes == {"ntfs_attrib": b"\x16\0\0\0"}
    assert (stream.path, stream.stream) == ("", "favicon")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == [".", "./:favicon"]


def test_files_come_by_place_and_directories_from_the_deepest_up():
    files = [
        file(5, "", directory=True),
        file(30, "a", directory=True),
        file(31, "a/b", directory=True),
        file(32, "a/far", Stream("", 512, 512, extents=(Extent(0, 512, 9000),))),
        file(33, "a/near", Stream("", 512, 512, extents=(Extent(0, 512, 512),))),
        file(34, "z", directory=True),
    ]
    order = [each.path for each in in_tape_order(files)]
    assert order == ["a/near", "a/far", "a/b", "a", "z", ""]


def test_a_compressed_stream_comes_as_its_content_but_for_whole_holes():
    content = bytearray(hashlib.shake_128(b"compressed").digest(200_000))
    content[65536:131072] = bytes(65536)
    stream = Stream(
        "",
        200_000,
        200_000,
        extents=(Extent(0, 4096, 0), Extent(131072, 8192, 8192), Extent(196608, 4096, 16384)),
        compressed=True,
        compression_unit=65536,
    )
    chunks = [bytes(content[at : at + 30_000]) for at in range(0, 200_000, 30_000)]
    archive, written, _ = archive_of(
        [file(1, "c", stream)], DISK, content=lambda file, stream: iter(chunks)
    )
    (member,) = members_of(archive)
    assert content_of(member, archive) == content
    assert [(data.start, data.length) for data in member.data] == [(0, 65536), (131072, 68928)]
    assert (member.server_bytes, member.reason) == (65536 + 68928, Reason.COMPRESSED)
    assert not written[0].damage


def test_content_that_falls_short_is_zeros_and_said():
    stream = Stream("", 9000, 9000, extents=(Extent(0, 4096, 0),), compressed=True)
    archive, (member,), _ = archive_of(
        [file(1, "c", stream)], DISK, content=lambda file, stream: iter([b"x" * 5000])
    )
    assert "4000 bytes are missing" in member.damage
    assert content_of(member, archive) == b"x" * 5000 + bytes(4000)
    assert len(members_of(archive)) == 1


def test_what_cannot_be_kept_is_told_and_the_rest_goes_on():
    secret = Stream("", 4096, 4096, extents=(Extent(0, 4096, 0),), encrypted=True)
    side = Stream("side", 4096, 4096, extents=(Extent(0, 4096, 0),), encrypted=True)
    files = [
        file(1, "secret", secret, more=("other name",)),
        file(2, "open", resident(b"x"), side),
        file(3, "out/../of", resident(b"x")),
        file(4, "last", resident(b"x")),
    ]
    archive, _, skipped = archive_of(files, DISK)
    assert [member.path for member in members_of(archive)] == ["last", "open"]
    assert sorted((damage.number, damage.why.split(":")[0]) for damage in skipped) == [
        (1, "secret"),
        (2, "open"),
        (3, "'out/../of' is no name for a member"),
    ]


def test_headers_are_what_posix_says_byte_for_byte():
    writer = ArchiveWriter()
    made = FileMembers(writer, 0, lambda file, stream: iter(()))
    ((_, pieces),) = made.members([file(7, "plain", resident(b"hi"), modified=10**18)])
    raw = put_together(pieces, DISK)
    note = b'comment=serverfree {"file":7,"sequence":3,"reason":"resident"}\n'
    assert raw[156:157] == b"x"
    assert raw[512:].startswith(b"%d " % (len(note) + 3) + note)
    header = raw[1024:1536]
    assert header[:6] == b"plain\0"
    assert header[100:108] == b"0000644\0"
    assert header[124:136] == b"00000000002\0"
    assert header[136:148] == b"07346545000\0"  # 10**9 in octal
    assert header[156:157] == b"0"
    assert header[257:265] == b"ustar\x0000"
    assert int(header[148:154], 8) == sum(header[:148]) + sum(header[156:]) + 8 * 32
    assert raw[1536:] == b"hi" + bytes(510)


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 10**13])
def test_sizes_beyond_eleven_octal_digits(size):
    stream = Stream("", size, size, extents=(Extent(0, size, 0),))
    writer = ArchiveWriter()
    made = FileMembers(writer, 0, lambda file, stream: iter(()))
    ((member, pieces),) = made.members([file(1, "big", stream)])
    headers = next(pieces).data
    assert isinstance(next(pieces), FromDisk)

    def read(offset, length):
        return headers[offset : offset + length] if offset < len(headers) else bytes(length)

    assert list(ArchiveReader(read).members()) == [member]
    assert member.end_offset == len(headers) + -(-size // 512) * 512
    entry = tarfile.TarFile(fileobj=io.BytesIO(headers + bytes(1024))).next()
    assert (entry.name, entry.size) == ("big", size)


def test_pieces_are_inline_but_for_disk_data():
    stream = Stream("", 1000, 1000, extents=(Extent(0, 1024, 2048),))
    writer = ArchiveWriter()
    made = FileMembers(writer, START, lambda file, stream: iter(()))
    ((_, pieces),) = made.members([file(1, "a", stream)])
    kinds = [type(piece) for piece in pieces]
    assert kinds == [Inline, FromDisk, Inline]


def test_a_reparse_point_of_a_file_is_in_our_note_and_of_a_directory_an_attribute():
    files = [
        file(1, "f", resident(b"content"), ntfs_reparse_data=b"\xbc\x0a\0\0"),
        file(2, "d", directory=True, ntfs_reparse_data=b"\x03\0\0\xa0"),
    ]
    archive, written, _ = archive_of(files, DISK)
    assert members_of(archive) == written
    assert archive.count(b"SCHILY.xattr.system.ntfs_reparse_data=\x03\0\0\xa0\n") == 1
    assert archive.count(b"ntfs_reparse_data") == 1


@pytest.mark.parametrize("modified", [1 << 70, -(1 << 70)])
def test_a_time_that_cannot_be_is_the_last_that_can(modified):
    archive, written, _ = archive_of([file(1, "f", resident(b"x"), modified=modified)], DISK)
    assert members_of(archive) == written
    assert abs(written[0].modified) == (1 << 63) - 1
