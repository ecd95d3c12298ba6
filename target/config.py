"""What a target serves, as the command line says it: validated here, trusted from here on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serverfree.initiator.sizes import parse_size

BLOCK_SIZES = (512, 4096)


class ConfigError(ValueError):
    """A setting cannot be; the text says which, and what is allowed."""


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """`--disk NAME=PATH[,size=S][,block=512|4096][,thin][,readonly]`."""

    name: str
    path: Path
    size: int | None = None
    block_size: int = 512
    thin: bool = False
    readonly: bool = False

    @classmethod
    def parse(cls, text: str) -> "DiskConfig":
        """Read the command line form. Raises ConfigError."""
        name, path, options = _split(text, "--disk", ("size", "block"), ("thin", "readonly"))
        block = options.get("block", "512")
        if block not in map(str, BLOCK_SIZES):
            raise ConfigError(f"--disk {name}: block={block}; it can be 512 or 4096")
        size = _size(options, "size", f"--disk {name}")
        if size is not None and (size <= 0 or size % int(block)):
            raise ConfigError(f"--disk {name}: size={size} is not a whole number of {block}s")
        return cls(name, path, size, int(block), "thin" in options, "readonly" in options)


@dataclass(frozen=True, slots=True)
class TapeConfig:
    """`--tape NAME=DIR[,capacity=S]`."""

    name: str
    path: Path
    capacity: int | None = None

    @classmethod
    def parse(cls, text: str) -> "TapeConfig":
        """Read the command line form. Raises ConfigError."""
        name, path, options = _split(text, "--tape", ("capacity",), ())
        return cls(name, path, _size(options, "capacity", f"--tape {name}"))


def _split(
    text: str, what: str, keys: tuple[str, ...], flags: tuple[str, ...]
) -> tuple[str, Path, dict[str, str]]:
    definition, *words = text.split(",")
    name, equals, path = definition.partition("=")
    if not name or not equals or not path:
        raise ConfigError(f"{what} {text!r}: write NAME=PATH, then options with commas before them")
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        known = key in keys if equals else key in flags
        if not known or key in options:
            allowed = ", ".join([f"{key}=" for key in keys] + list(flags))
            raise ConfigError(
                f"{what} {name}: option {word!r} is unknown or said twice ({allowed})"
            )
        options[key] = value
    return name, Path(path), options


def _size(options: Mapping[str, str], key: str, where: str) -> int | None:
    if key not in options:
        return None
    try:
        return parse_size(options[key])
    except ValueError as error:
        raise ConfigError(f"{where}: {key}: {error}") from None
