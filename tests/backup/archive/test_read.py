"""Headers of any tar, read back: damaged, hostile and foreign archives made by hand."""

import hashlib
import io
import random
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.backup.archive import pax, sparse
from serverfree.backup.archive.header import parse_header, parse_records
from serverfree.backup.archive.member import ArchiveError, Kind
from serverfree.backup.archive.read import ArchiveReader
from serverfree.backup.files import Extent, File, Stream
from support.archives import archive_of, members_of

DISK = hashlib.shake_128(b"volume").digest(1 << 16)


def with_sum(header: bytes) -> bytes:
    total = sum(header) - sum(header[148:156]) + 8 * 32
    return header[:148] + b"%06o\0 " % total + header[156:]


def by_tarfile(format: int, *entries: tuple[str, bytes], **more) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format, encoding="utf-8") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for key, value in more.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


FORMATS = pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)


class TestForeignArchives:
    @FORMATS
    def test_long_names_and_their_content(self, format):
        name = "/".join(["folder" * 5] * 6) + "/" + "f" * 60
        archive = by_tarfile(format, (name, b"x" * 700), ("short", b""))
        first, second = members_of(archive)
        assert (first.path, first.size, second.path) == (name, 700, "short")
        (data,) = first.data
        assert archive[data.archive_offset :][:700] == b"x" * 700
        assert first.number is None

    @pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_sizes_beyond_octal(self, format):
        entry = tarfile.TarInfo("big")
        entry.size = 9 << 40
        raw = entry.tobuf(format)

        def read(offset, length):
            return raw[offset : offset + length] if offset < len(raw) else bytes(length)

        (member,) = ArchiveReader(read).members()
        assert (member.size, member.end_offset) == (9 << 40, len(raw) + (9 << 40))

    @FORMATS
    def test_links_and_what_is_no_file(self, format):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=format) as tar:
            for kind, name, link in (
                (tarfile.DIRTYPE, "d", ""),
                (tarfile.LNKTYPE, "d/l", "t" * 90),
                (tarfile.SYMTYPE, "d/s", "../t" * 20),
                (tarfile.FIFOTYPE, "d/p", ""),
                (tarfile.CHRTYPE, "d/c", ""),
            ):
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = kind, link
                tar.addfile(entry)
        found = members_of(made.getvalue())
        assert [(one.path, one.kind, one.link_target) for one in found] == [
            ("d", Kind.DIRECTORY, ""),
            ("d/l", Kind.HARD_LINK, "t" * 90),
            ("d/s", Kind.SYMBOLIC_LINK, "../t" * 20),
            ("d/p", Kind.OTHER, ""),
            ("d/c", Kind.OTHER, ""),
        ]

    def test_times_before_1970_and_fractions(self):
        for text, expected in ((b"-1.25", -1_250_000_000), (b"7.0000000019", 7_000_000_001)):
            header = pax.pack_member("a", b"0", 0, 0, [("mtime", text)])
            (member,) = members_of(header + pax.END)
            assert member.modified == expected
        archive = by_tarfile(tarfile.GNU_FORMAT, ("old", b""), mtime=-86400)
        assert members_of(archive)[0].modified == -86400 * 10**9

    def test_a_header_from_before_ustar(self):
        header = bytearray(512)
        header[:7] = b"folder/"
        header[100:108] = b"0000755\0"
        header[124:136] = header[136:148] = b"00000000000\0"
        archive = with_sum(bytes(header)) + bytes(1024)
        (member,) = members_of(archive)
        assert (member.path, member.kind) == ("folder", Kind.DIRECTORY)

    def test_a_sum_of_signed_bytes(self):
        header = bytearray(tarfile.TarInfo("ü").tobuf(tarfile.USTAR_FORMAT, encoding="latin-1"))
        assert header[0] == 0xFC
        signed = sum(b - 256 * (b > 127) for b in header[:148] + header[156:]) + 8 * 32
        header[148:156] = b"%06o\0 " % signed
        assert members_of(bytes(header) + bytes(1024))[0].path == "\udcfc"

    def test_a_file_that_begins_like_our_notes_but_is_not(self):
        for comment in (b"serverfree [1]", b"serverfree {", b"serverfree " + b"[" * 9999, b"other"):
            header = pax.pack_member("a", b"0", 0, 0, [("comment", comment)])
            (member,) = members_of(header + pax.END)
            assert (member.kind, member.number) == (Kind.FILE, None)

    def test_notes_of_an_enemy(self):
        facts = {"kind": ["x"], "file": "5", "sequence": {}, "stream": 5, "reason": []}
        header = pax.pack_member("a", b"0", 0, 0, [pax.note(facts)])
        (member,) = members_of(header + pax.END)
        assert (member.kind, member.number, member.stream) == (Kind.FILE, None, "")

    def test_numbers_that_no_catalog_could_hold(self):
        facts = {"file": 1 << 70, "sequence": -1}
        records = [pax.note(facts), ("mtime", b"9" * 18)]
        (member,) = members_of(pax.pack_member("a", b"0", 0, 0, records) + pax.END)
        assert (member.number, member.modified) == (None, (1 << 63) - 1)
        header = pax.pack_member("a", b"0", 0, 0, [("size", b"%d" % ((1 << 63) - 600))])
        with pytest.raises(ArchiveError, match="a member of"):
            members_of(header + pax.END)

    def test_paths_are_from_the_root_of_the_archive(self):
        paths = ("/etc/passwd", "./a//b", "x/./y", "up/../../there")
        found = members_of(by_tarfile(tarfile.GNU_FORMAT, *((path, b"") for path in paths)))
        assert [one.path for one in found] == ["etc/passwd", "a/b", "x/y", "up/../../there"]
        assert [bool(one.damage) for one in found] == [False, False, False, True]


class TestSparseOfGnu:
    def test_format_0_0_and_0_1(self):
        regions = [(0, 512), (4096, 512), (8192, 0)]
        first = [("GNU.sparse.size", b"8192"), ("GNU.sparse.numblocks", b"3")]
        for offset, length in regions:
            first.append(("GNU.sparse.offset", b"%d" % offset))
            first.append(("GNU.sparse.numbytes", b"%d" % length))
        second = [
            ("GNU.sparse.size", b"8192"),
            ("GNU.sparse.map", b"0,512,4096,512,8192,0"),
            ("GNU.sparse.name", b"name"),
        ]
        for records in (first, second):
            archive = pax.pack_member("name", b"0", 1024, 0, records) + bytes(1024) + pax.END
            (member,) = members_of(archive)
            assert (member.path, member.size) == ("name", 8192)
            assert [(data.start, data.length) for data in member.data] == [(0, 512), (4096, 512)]
            assert member.data[1].archive_offset == member.data[0].archive_offset + 512

    def test_a_map_of_many_blocks_and_what_follows(self):
        regions = [(number * 1024, 512) for number in range(5000)]
        table = sparse.pack_map(regions, 6_000_000)
        reader = sparse.MapReader()
        used = 0
        for at in range(0, len(table) + 512, 512):
            used += reader.feed((table + b"?" * 512)[at : at + 512])
            if reader.done:
                break
        assert used == len(table)
        assert reader.regions == [*regions, (6_000_000, 0)]

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 10**12)), max_size=200),
        st.sampled_from([512, 1024, 65536]),
    )
    def test_any_map_in_any_portions(self, regions, portion):
        text = "".join(f"{number}\n" for pair in regions for number in pair)
        table = f"{len(regions)}\n{text}".encode()
        table += bytes(-len(table) % 512)
        data = table + b"1\n" * 65536
        reader, used = sparse.MapReader(), 0
        while not reader.done:
            used += reader.feed(data[used : used + portion])
        assert (used, reader.regions) == (len(table), regions)


class TestDamage:
    def test_what_is_no_archive(self):
        for raw in (b"x" * 512, b"\xff" * 512, DISK[:512]):
            with pytest.raises(ArchiveError, match="byte 0: this is no header"):
                list(ArchiveReader(lambda at, n, raw=raw: raw[at : at + n]).members())

    @pytest.mark.parametrize("left", [0, 100, 512, 1000, 1536])
    def test_an_archive_that_is_cut_short_is_not_complete(self, left):
        archive, _, _ = archive_of([File(1, 1, False, ("a",), 0)], DISK)
        reader = ArchiveReader(lambda at, n: archive[:left][at : at + n])
        assert list(reader.members()) == []
        assert not reader.complete

    @pytest.mark.parametrize(
        "records",
        [
            [("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9" * 30)],
            [("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"1")],
            [("GNU.sparse.map", b"0,512,1"), ("GNU.sparse.size", b"4096")],
            [("GNU.sparse.map", b"0,x"), ("GNU.sparse.size", b"4096")],
            [("GNU.sparse.map", b"9000,512"), ("GNU.sparse.size", b"4096")],
            [("GNU.sparse.map", b"0,4096"), ("GNU.sparse.size", b"4096")],
            [("size", b"-5")],
            [("size", b"1" * 25)],
        ],
    )
    def test_records_that_lie(self, records):
        archive = pax.pack_member("a", b"0", 512, 0, records) + b"9" * 512 + pax.END
        with pytest.raises(ArchiveError):
            members_of(archive)

    @pytest.mark.parametrize(
        "body",
        [b"5 a=", b"0 a=b\n", b"99 a=b\n", b"x", b"7 abcd\n", b"-9 a=b\n", b"9" * 30 + b" a=b\n"],
    )
    def test_records_that_are_none(self, body):
        with pytest.raises(ArchiveError):
            parse_records(body)

    def test_endless_records_are_not_taken_in(self):
        header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
        header[156:157], header[124:136] = b"x", b"77777777777\0"
        header = with_sum(bytes(header))
        assert parse_header(header).size == 8**11 - 1
        asked = []

        def read(offset, length):
            asked.append(length)
            return header if offset == 0 else bytes(length)

        with pytest.raises(ArchiveError, match="of records"):
            list(ArchiveReader(read).members())
        assert asked == [512]

    def test_negative_and_enormous_sizes(self):
        for field in (b"\xff" * 12, b"\x80" + b"\xff" * 11):
            header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
            header[124:136] = field
            with pytest.raises(ArchiveError, match="a size of"):
                parse_header(with_sum(bytes(header)))

    def test_mutations_end_in_members_or_in_an_archive_error(self):
        stream = Stream("", 9000, 5000, extents=(Extent(0, 512, 0), Extent(4096, 1024, 512)))
        archive, _, _ = archive_of(
            [
                File(1, 1, False, ("a" * 200, "b"), -5, (stream,), {"ntfs_acl": bytes(99)}),
                File(2, 1, True, ("ö",), 5),
            ],
            DISK,
            catalog=b"c" * 600,
        )
        archive += by_tarfile(tarfile.GNU_FORMAT, ("n" * 150, b"x" * 600))
        headers = [at for at in range(0, len(archive), 512) if archive[at + 257 :][:5] == b"ustar"]
        source = random.Random(7)
        ended = {True: 0, False: 0}
        for _ in range(4000):
            mutant = bytearray(archive)
            for _ in range(source.randint(1, 4)):
                at = source.randrange(len(archive))
                mutant[at] = source.choice((0, 9, 32, 0x30, 0x39, 0xFF, source.randrange(256)))
            for at in headers:  # so that a mutation gets past the sum
                mutant[at : at + 512] = with_sum(bytes(mutant[at : at + 512]))
            reader = ArchiveReader(lambda at, n, mutant=mutant: bytes(mutant[at : at + n]))
            try:
                for count, member in enumerate(reader.members()):
                    assert member.end_offset > member.header_offset
                    assert count < 50
                ended[True] += 1
            except ArchiveError:
                ended[False] += 1
        assert min(ended.values()) > 100
