"""What every block store promises: a store's test file derives from this and makes one."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.target.backstore.base import BlockStore, Stored
from serverfree.target.backstore.file import open_file_store

SIZE = 1 << 16
PAGE = 4096
OPERATIONS = st.tuples(
    st.sampled_from(("write", "zero", "discard", "take")),
    st.integers(0, SIZE),
    st.integers(0, SIZE),
    st.binary(min_size=1, max_size=3),
)


class BlockStoreContract:
    """Derive, and give `store`: SIZE bytes of zeros, writable."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> BlockStore:
        """Make the store."""
        raise NotImplementedError

    def test_it_begins_as_zeros(self, store: BlockStore) -> None:
        assert store.size == SIZE
        assert store.pread(0, SIZE) == bytes(SIZE)

    def test_both_ways_of_reading_see_what_was_written(self, store: BlockStore) -> None:
        store.write(1000, memoryview(bytearray(b"abc" * 500)))
        store.write(SIZE - 1, b"z")
        for read in (store.view, store.pread):
            assert bytes(read(998, 1504)) == b"\0\0" + b"abc" * 500 + b"\0\0"
            assert bytes(read(SIZE - 2, 2)) == b"\0z"
            assert bytes(read(7, 0)) == b""

    def test_a_copy_does_not_change_with_later_writes(self, store: BlockStore) -> None:
        before = store.pread(0, 512)
        store.write(0, b"x" * 512)
        assert before == bytes(512)

    def test_zeroed_bytes_are_zeros_and_their_neighbours_are_not(self, store: BlockStore) -> None:
        store.write(0, b"x" * SIZE)
        store.zero(100, PAGE * 3)
        store.zero(50, 0)
        assert store.pread(0, SIZE) == b"x" * 100 + bytes(PAGE * 3) + b"x" * (SIZE - 100 - PAGE * 3)

    def test_discarded_bytes_are_zeros_and_their_neighbours_are_not(
        self, store: BlockStore
    ) -> None:
        if not store.can_discard:
            pytest.skip("cannot discard")
        store.write(0, b"x" * SIZE)
        store.discard(512, PAGE * 3)
        store.discard(512, 0)
        expected = b"x" * 512 + bytes(PAGE * 3) + b"x" * (SIZE - 512 - PAGE * 3)
        assert store.pread(0, SIZE) == expected
        assert bytes(store.view(0, SIZE)) == expected

    def test_taken_bytes_are_those_of_the_other_store_and_their_neighbours_are_not(
        self, store: BlockStore, tmp_path: Path
    ) -> None:
        other = open_file_store(tmp_path / "other", SIZE, thin=True)
        other.write(PAGE, b"y" * 700)
        other.write(PAGE * 5, b"z" * PAGE * 2)
        store.write(0, b"x" * SIZE)
        store.take(512, Stored(other, PAGE, PAGE * 5))
        store.take(50, Stored(other, 0, 0))
        taken = b"y" * 700 + bytes(PAGE * 4 - 700) + b"z" * PAGE
        expected = b"x" * 512 + taken + b"x" * (SIZE - 512 - len(taken))
        assert store.pread(0, SIZE) == expected
        assert bytes(store.view(0, SIZE)) == expected

    def test_others_can_take_its_bytes(self, store: BlockStore, tmp_path: Path) -> None:
        store.write(PAGE, b"y" * 700)
        store.write(PAGE * 5, b"z" * PAGE * 2)
        for thin in (True, False):
            other = open_file_store(tmp_path / f"other of {thin}", SIZE, thin=thin)
            other.write(0, b"x" * SIZE)
            other.take(PAGE, Stored(store, PAGE, PAGE * 6))
            taken = store.pread(PAGE, PAGE * 6)
            expected = b"x" * PAGE + taken + b"x" * (SIZE - PAGE * 7)
            assert other.pread(0, SIZE) == expected

    def test_it_can_take_its_own_bytes_elsewhere(self, store: BlockStore) -> None:
        store.write(0, b"x" * SIZE)
        store.write(PAGE, b"y" * PAGE)
        store.take(PAGE * 2 + 3, Stored(store, PAGE, PAGE))
        assert store.pread(PAGE * 2, PAGE + 4) == b"xxx" + b"y" * PAGE + b"x"

    def test_extents_cover_the_range_and_say_true_things(self, store: BlockStore) -> None:
        store.write(PAGE * 2 + 5, b"x" * PAGE)
        for offset, length in ((0, SIZE), (PAGE * 2 + 7, 100), (3, PAGE * 4), (SIZE - 1, 1)):
            at = offset
            for run_offset, run_length, has_data in store.extents(offset, length):
                assert run_offset == at
                assert run_length > 0
                if not has_data:
                    assert store.pread(run_offset, run_length) == bytes(run_length)
                at += run_length
            assert at == offset + length
        assert list(store.extents(0, 0)) == []

    def test_hints_change_nothing(self, store: BlockStore) -> None:
        store.write(0, b"x" * SIZE)
        store.flush()
        store.prefetch(0, SIZE)
        store.evict(0, SIZE)
        assert store.pread(0, SIZE) == b"x" * SIZE

    def test_reading_goes_on_when_the_map_is_given_up(self, store: BlockStore) -> None:
        store.write(0, b"before")
        window = store.view(0, 6)
        store.give_up_map()
        store.write(10, b"after")
        assert bytes(store.view(0, 15)) == b"before\0\0\0\0after"
        assert bytes(window) == b"before"
        store.give_up_map()

    def test_a_window_outlives_the_store(self, store: BlockStore) -> None:
        store.write(0, b"still here")
        window = store.view(0, 10)
        store.close()
        store.close()
        assert bytes(window) == b"still here"

    def test_it_is_an_array_of_bytes(self, store: BlockStore, tmp_path: Path) -> None:
        other = open_file_store(tmp_path / "other", SIZE, thin=True)

        @settings(max_examples=30, deadline=None)
        @given(st.lists(OPERATIONS, min_size=1, max_size=8))
        def agree(operations: list[tuple[str, int, int, bytes]]) -> None:
            store.write(0, bytes(SIZE))
            model = bytearray(SIZE)
            for operation, offset, length, content in operations:
                length = min(length, SIZE - offset)
                if operation in ("write", "take"):
                    data = (content * (length // len(content) + 1))[:length]
                if operation == "write":
                    store.write(offset, data)
                elif operation == "take":
                    other.write(SIZE - length, data)
                    store.take(offset, Stored(other, SIZE - length, length))
                elif operation == "discard" and store.can_discard:
                    data = bytes(length)
                    store.discard(offset, length)
                else:
                    data = bytes(length)
                    store.zero(offset, length)
                model[offset : offset + length] = data
                assert bytes(store.view(0, SIZE)) == store.pread(0, SIZE) == model

        agree()
