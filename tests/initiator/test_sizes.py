import pytest

from serverfree.initiator.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("256KiB", 262_144),
        ("256k", 262_144),
        ("1.5GiB", 3 << 29),
        ("10 TiB", 10 << 40),
        ("2EiB", 2 << 60),
        ("0.5KiB", 512),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "0.3KiB", "1XiB", "1KB", "1 2", "KiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (512, "512 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (100 << 20, "100 MiB")],
)
def test_sizes_are_shown(size, text):
    assert format_size(size) == text
