"""Sizes as people write them: `4096`, `256KiB`, `1.5GiB`; and as people read them."""

import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# K, M, G and T alone are common enough to be taken; they too mean powers of 1024.
_FACTORS: dict[str, int] = {unit.lower(): 1024**power for power, unit in enumerate(_UNITS)}
_FACTORS |= {unit[0].lower(): 1024**power for power, unit in enumerate(_UNITS) if power}
_SIZE = re.compile(r"(\d+)(?:\.(\d+))?\s*([a-z]*)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return a number of bytes. ValueError for what is no size, or no whole number of bytes."""
    match = _SIZE.fullmatch(text.strip())
    factor = _FACTORS.get((match[3] or "b").lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not a size; write 4096, 256KiB, 10GiB or 1TiB")
    fraction = match[2] or ""
    scaled = int(match[1] + fraction) * factor
    parts: int = 10 ** len(fraction)
    size, rest = divmod(scaled, parts)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size


def format_size(size: float) -> str:
    """Return a size with at most three digits before its unit: `512 B`, `256 KiB`, `1.5 GiB`."""
    power = 0
    while size >= 1024 and power < len(_UNITS) - 1:
        size, power = size / 1024, power + 1
    text = f"{size:.1f}".removesuffix(".0") if size < 100 else f"{size:.0f}"
    return f"{text} {_UNITS[power]}"
