"""Sizes as people write them: `4096`, `256KiB`, `1.5GiB`; and as people read them."""

import re

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# K, M, G and T alone are common enough to be taken; they too mean powers of 1024.
_FACTORS = {unit.lower(): 1024**power for power, unit in enumerate(_UNITS)}
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
    size, rest = divmod(scaled, 10 ** len(fraction))
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size


def format_size(size: float) -> str:
    """Return a size with at most three digits before its unit: `512 B`, `256 KiB`, `1.5 GiB`."""
    value = float(size)
    for unit in _UNITS[:-1]:
        if value < 1024:
            break
        value /= 1024
    else:
        unit = _UNITS[-1]
    text = f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:.0f}"
    return f"{text} {unit}"
