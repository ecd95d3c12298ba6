import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.iscsi import text
from serverfree.iscsi.text import TextBuffer, TextError


def test_pairs_are_nul_terminated_in_order():
    assert text.pack([("A", "1"), ("B", "x,y")]) == b"A=1\0B=x,y\0"


def test_a_key_may_come_twice_and_keeps_its_place():
    raw = b"TargetName=iqn.2001-04.a:b\0TargetAddress=h:1,1\0TargetName=iqn.2001-04.a:c\0"
    assert text.unpack(raw) == [
        ("TargetName", "iqn.2001-04.a:b"),
        ("TargetAddress", "h:1,1"),
        ("TargetName", "iqn.2001-04.a:c"),
    ]


def test_value_may_hold_equals_signs_and_be_empty():
    assert text.unpack(b"TargetAlias=a=b\0SendTargets=\0") == [
        ("TargetAlias", "a=b"),
        ("SendTargets", ""),
    ]


def test_padding_nuls_and_a_missing_last_nul_are_tolerated():
    assert text.unpack(b"A=1\0\0\0B=2") == [("A", "1"), ("B", "2")]


@pytest.mark.parametrize("raw", [b"novalue\0", b"=x\0", b"1A=x\0", b"A b=x\0", b"\xff=x\0"])
def test_what_is_not_key_value_is_refused(raw):
    with pytest.raises(TextError):
        text.unpack(raw)


def test_key_of_more_than_63_characters_is_refused():
    assert text.unpack(b"K" * 63 + b"=v\0")
    with pytest.raises(TextError):
        text.unpack(b"K" * 64 + b"=v\0")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("0", 0),
        ("65536", 65536),
        ("0x1F", 31),
        ("0XfF", 255),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", None),
        ("007", None),
        ("-1", None),
        ("1 ", None),
        ("", None),
        ("0x", None),
        ("\u0661", None),
    ],
)
def test_numerical_values(value, number):
    assert text.parse_number(value) == number


def test_boolean_values_are_exactly_yes_and_no():
    assert text.parse_boolean("Yes") is True
    assert text.parse_boolean("No") is False
    assert text.parse_boolean("yes") is None


def test_pairs_may_lie_across_pdu_borders():
    buffer = TextBuffer()
    buffer.append(b"Max")
    buffer.append(b"BurstLength=51")
    buffer.append(b"2\0")
    assert buffer.take() == [("MaxBurstLength", "512")]
    assert buffer.take() == []


def test_text_without_end_is_cut_off():
    buffer = TextBuffer(limit=100)
    buffer.append(b"A" * 100)
    with pytest.raises(TextError):
        buffer.append(b"A")


_KEYS = st.from_regex(r"[A-Z][A-Za-z0-9]{0,20}", fullmatch=True)
_VALUES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)


@settings(max_examples=60)
@given(st.lists(st.tuples(_KEYS, _VALUES)))
def test_what_is_packed_is_read_back(pairs):
    assert text.unpack(text.pack(pairs)) == pairs


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_pairs_or_a_text_error(raw):
    with contextlib.suppress(TextError):
        text.unpack(raw)
