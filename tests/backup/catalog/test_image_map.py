"""Files inside images, beside disks of a few bytes whose every byte is looked up."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.backup.archive.member import Data, Elsewhere, Kind, Member
from serverfree.backup.catalog.facts import BackupFacts, CatalogError, Mode
from serverfree.backup.catalog.image_map import ImageMap, members_of_image
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.files import Extent, File, Stream

SIZE = 60
START = 7  # of the volume on the disk


@st.composite
def images(draw):
    """Ranges of a disk, apart or neighbours, in an archive one behind the other with gaps."""
    cuts = sorted(draw(st.sets(st.integers(0, SIZE), max_size=10)))
    held, at = [], draw(st.integers(0, 9))
    for low, high in pairwise(cuts):
        if draw(st.booleans()):
            held.append(Data(low, high - low, at))
            at += high - low + draw(st.integers(0, 3))
    return held


@settings(max_examples=200, deadline=None)
@given(image=images(), start=st.integers(0, 99), data=st.data())
def test_every_byte_is_where_the_image_has_it_or_named_as_missing(image, start, data):
    low = data.draw(st.integers(0, SIZE))
    length = data.draw(st.integers(0, SIZE - low))
    where = {d.start + n: d.archive_offset + n for d in image for n in range(d.length)}
    held, elsewhere = ImageMap(image).split(start, length, low)
    found = {d.start + n: d.archive_offset + n for d in held for n in range(d.length)}
    missing = {e.start + n: e.disk_offset + n for e in elsewhere for n in range(e.length)}
    assert all(each.length > 0 for each in [*held, *elsewhere])
    assert sum(each.length for each in [*held, *elsewhere]) == length
    for n in range(length):
        if low + n in where:
            assert found[start + n] == where[low + n]
        else:
            assert missing[start + n] == low + n


def file(*streams, paths=("f",), **more):
    return File(5, 2, False, paths, 10**18, streams, **more)


def test_streams_links_and_residents_become_members_without_headers():
    image = [Data(0, 4096, 100)]
    plain = Stream("", 700, 600, extents=(Extent(0, 512, 0), Extent(512, 512, 1024)))
    tiny = Stream("tiny", 3, 3, resident=b"abc")
    members = list(
        members_of_image(
            [file(plain, tiny, paths=("a/f", "b/g"), attributes={"ntfs_acl": b"x"})], image, START
        )
    )
    own, stream, link = members
    assert (own.path, own.kind, own.size) == ("a/f", Kind.FILE, 700)
    # Nothing from the valid length on, and places are the volume's.
    assert own.data == (Data(0, 512, 107), Data(512, 88, 1131))
    assert own.attributes == {"ntfs_acl": b"x"}
    assert (stream.path, stream.stream, stream.resident) == ("a/f", "tiny", b"abc")
    assert (link.path, link.kind, link.link_target) == ("b/g", Kind.HARD_LINK, "a/f")
    assert {each.end_offset for each in members} == {0}
    assert {(each.number, each.sequence) for each in members} == {(5, 2)}


def test_of_a_compressed_stream_the_whole_clusters_are_kept():
    stream = Stream(
        "", 100, 90, extents=(Extent(0, 512, 0),), compressed=True, compression_unit=8192
    )
    (member,) = members_of_image([file(stream)], [Data(0, 4096, 0)], START)
    assert member.data == (Data(0, 512, START),)
    assert (member.size, member.valid, member.compression_unit) == (100, 90, 8192)


def test_an_encrypted_stream_has_nothing_but_a_word_why():
    stream = Stream("", 100, 100, extents=(Extent(0, 512, 0),), encrypted=True)
    (member,) = members_of_image([file(stream)], [Data(0, 4096, 0)], START)
    assert member.data == ()
    assert "encrypted" in member.damage


@pytest.fixture
def catalog(tmp_path):
    with Catalog.open(tmp_path / "catalog.sqlite") as opened:
        yield opened


def add(catalog, image, files=(), parent=""):
    writer = catalog.begin(BackupFacts(name="d", mode=Mode.IMAGE, created=1, parent=parent))
    writer.add_member(Member("d.img", Kind.IMAGE, SIZE, data=tuple(image), end_offset=1))
    writer.add_members(members_of_image(files, image, 0))
    return writer.finish({}, blocks=1, size=1)


def test_a_file_of_a_chain_has_every_part_from_the_newest_image_that_holds_it(catalog):
    stream = Stream("", 40, 40, extents=(Extent(0, 20, 10), Extent(20, 20, 40)))
    full = add(catalog, [Data(0, 60, 1000)])
    second = add(catalog, [Data(12, 4, 2000), Data(50, 10, 2004)], parent=full.uuid)
    third = add(catalog, [Data(14, 1, 3000)], [file(stream)], parent=second.uuid)
    (entry,) = catalog.at(third, "f")
    assert list(catalog.pieces(entry)) == [
        (full, Data(0, 2, 1010)),
        (second, Data(2, 2, 2000)),
        (third, Data(4, 1, 3000)),
        (second, Data(5, 1, 2003)),
        (full, Data(6, 14, 1016)),
        (full, Data(20, 10, 1040)),
        (second, Data(30, 10, 2004)),
    ]


def test_what_no_image_of_the_chain_holds_is_told(catalog):
    stream = Stream("", 40, 40, extents=(Extent(0, 40, 0),))
    full = add(catalog, [Data(0, 30, 1000)], [file(stream)])
    (entry,) = catalog.at(full, "f")
    assert catalog.whole(entry).member.elsewhere == (Elsewhere(30, 10, 30),)
    with pytest.raises(CatalogError, match="10 bytes are in no backup"):
        catalog.pieces(entry)
