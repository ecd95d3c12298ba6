"""Listing and finding, beside plain dictionaries that were filled with the same."""

import fnmatch
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.backup.archive.member import Data, Kind, Member, Reason
from serverfree.backup.catalog.facts import BackupFacts, BackupNotFound, CatalogError, Mode, State
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.select import NothingMatches
from support.tape import MEMORY

NAMES = st.sampled_from(
    ["a", "A", "b.txt", "B.TXT", "ä", "[x]", "*", "\udc80", "日本", "it's", "%"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
TREES = st.dictionaries(
    st.tuples(PATHS, st.sampled_from(["", "", "stream", "\ud800"])),
    st.integers(0, 1 << 62),
    max_size=12,
)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "*", "?", "[", "]", "/", ".txt", "ä", "%", ":"]), max_size=5
).map("".join)


def facts(name="disk", created=1, **more):
    return BackupFacts(name=name, mode=Mode.FILES, created=created, **more)


def fill(catalog, tree, created=1):
    writer = catalog.begin(facts(created=created))
    writer.add_members(
        Member(path, Kind.FILE, size, stream=stream) for (path, stream), size in tree.items()
    )
    return writer.finish({}, blocks=1, size=1)


def named(entries):
    return sorted((e.member.path, e.member.stream, e.member.size) for e in entries)


def shown(path, stream):
    return f"{path}:{stream}" if stream else path


@pytest.fixture
def catalog(tmp_path):
    with Catalog.open(tmp_path / "catalog.sqlite") as opened:
        yield opened


@settings(max_examples=40, deadline=None)
@given(first=TREES, second=TREES, path=PATHS, pattern=PATTERNS)
def test_answers_are_those_of_a_dictionary(first, second, path, pattern):
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        Catalog.open(Path(folder) / "catalog.sqlite") as catalog,
    ):
        backups = [fill(catalog, first, 1), fill(catalog, second, 2)]
        for tree, backup in zip((first, second), backups, strict=True):
            assert named(catalog.members(backup)) == sorted((*k, v) for k, v in tree.items())
            # Listing: for every folder that there is, what lies directly in it.
            folders = {""} | {
                "/".join(each.split("/")[:n])
                for each, _ in tree
                for n in range(1, each.count("/") + 1)
            }
            for folder in folders if tree else ():
                inside = [
                    (*key, size)
                    for key, size in tree.items()
                    if key[0].rpartition("/")[0] == folder
                ]
                assert named(catalog.list(backup, folder)) == sorted(inside)
                assert list(catalog.folders(backup, folder)) == sorted(
                    each for each in folders if each and each.rpartition("/")[0] == folder
                )
            at = [(*key, size) for key, size in tree.items() if key[0] == path]
            if at:
                assert named(catalog.at(backup, path)) == sorted(at)
        both = [(*key, size) for tree in (first, second) for key, size in tree.items()]
        wanted = []
        for each_path, stream, size in both:
            text = shown(each_path, stream)
            if "/" not in pattern:
                text = shown(each_path.rpartition("/")[2], stream)
            if fnmatch.fnmatchcase(text.casefold(), pattern.strip("/").casefold()):
                wanted.append((each_path, stream, size))
        assert named(catalog.find(pattern)) == sorted(wanted)


def test_a_member_comes_back_as_it_was(catalog):
    member = Member(
        path="a/\ud800/b",
        kind=Kind.FILE,
        size=1 << 62,
        modified=-(10**18),
        stream="s\udcff",
        header_offset=512,
        end_offset=4096,
        data=(Data(0, 10, 1024), Data(4096, 20, 2048)),
        link_target="there/\udc80",
        attributes={"ntfs_acl": bytes(range(256)), "ntfs_ea": b"", "user.x": b"\0" * 70_000},
        number=1 << 40,
        sequence=3,
        server_bytes=30,
        reason=Reason.COMPRESSED,
        damage="torn",
        resident=b"inline",
        compression_unit=65536,
        valid=12,
    )
    writer = catalog.begin(facts())
    writer.add_member(member)
    (listed,) = catalog.list(writer.backup, "a/\ud800")
    assert listed.member == replace(
        member, data=(), attributes={}, resident=None, compression_unit=0, valid=None
    )
    assert catalog.whole(listed).member == member
    assert catalog.extents(listed) == member.data
    assert [entry.member for entry in catalog.members(writer.backup)] == [member]


def test_a_path_is_met_without_regard_to_case_if_there_is_none_as_written(catalog):
    backup = fill(catalog, {("Users/Ärger.TXT", ""): 1, ("users/other", ""): 2})
    assert named(catalog.at(backup, "Users/ärger.txt")) == [("Users/Ärger.TXT", "", 1)]
    assert named(catalog.list(backup, "users")) == [("users/other", "", 2)]


def test_members_are_chosen_by_paths_folders_and_patterns(catalog):
    backup = fill(catalog, {(name, ""): 0 for name in ("a/b/c", "a/b2", "d/e.txt", "d/f.bin")})

    def chosen(*paths):
        return [entry.shown for entry in catalog.members(backup, paths)]

    assert chosen("A") == ["a/b/c", "a/b2"]
    assert chosen("a/b") == ["a/b/c"]
    assert chosen("d/*.txt", "a/b2") == ["a/b2", "d/e.txt"]
    with pytest.raises(NothingMatches, match="nowhere"):
        chosen("d", "nowhere")


def test_backups_are_found_by_the_beginning_of_their_id(catalog):
    one = catalog.begin(facts(uuid="aaaa1111-0000-4000-8000-000000000001")).backup
    two = catalog.begin(facts(uuid="aaaa2222-0000-4000-8000-000000000001", created=2)).backup
    assert catalog.backup("aaaa1").id == one.id == "aaaa1111"
    assert catalog.backup("AAAA2222").uuid == two.uuid
    assert catalog.backup(two.uuid) == two
    assert [each.id for each in catalog.backups()] == [one.id, two.id]
    with pytest.raises(BackupNotFound, match="2 ids: aaaa1111, aaaa2222"):
        catalog.backup("aaaa")
    with pytest.raises(BackupNotFound, match="newest are aaaa2222, aaaa1111"):
        catalog.backup("bbbb")
    with pytest.raises(BackupNotFound, match="8 hexadecimal digits"):
        catalog.backup("%")
    with pytest.raises(BackupNotFound, match="no backup that is done"):
        catalog.backup("latest")


def test_an_empty_catalog_says_how_to_fill_it(catalog):
    with pytest.raises(BackupNotFound, match="scan"):
        catalog.backup("12345678")


def done(catalog, parent="", members=(), **more):
    writer = catalog.begin(facts(parent=parent, **more))
    writer.add_members(members)
    return writer.finish({}, blocks=1, size=1)


def test_a_chain_begins_with_the_full_backup(catalog):
    full = done(catalog)
    second = done(catalog, full.uuid)
    third = done(catalog, second.uuid)
    assert [each.id for each in catalog.chain(third)] == [full.id, second.id, third.id]
    assert list(catalog.chain(full)) == [full]


def test_a_broken_chain_is_told(catalog):
    gone = "12345678-0000-4000-8000-000000000001"
    with pytest.raises(CatalogError, match="since 12345678, which the catalog does not have"):
        catalog.chain(done(catalog, gone))
    failed = catalog.begin(facts()).fail("tape full")
    assert failed.state is State.FAILED
    with pytest.raises(CatalogError, match="which is failed"):
        catalog.chain(done(catalog, failed.uuid))
    own = "22345678-0000-4000-8000-000000000001"
    with pytest.raises(CatalogError, match="since itself"):
        catalog.chain(done(catalog, own, uuid=own))
