"""What is served, and to whom: validated where it is made, trusted from here on.

The command line and the configuration file (`config_file`) both end in these objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

from serverfree.initiator.secrets import NOBODY, Login
from serverfree.initiator.sizes import parse_size
from serverfree.iscsi.chap import Account
from serverfree.iscsi.names import Portal
from serverfree.target.access import Entry, Redirect
from serverfree.target.units.stream_profile import PROFILES

BLOCK_SIZES = (512, 4096)
_LARGEST_PHYSICAL = 1 << 20
_LONGEST_DELAY = 60_000
_LONGEST_WAIT = 86_400  # seconds
_CHUNKS = (4 << 10, 1 << 20)
DEFAULT_PORTAL = Portal("127.0.0.1", 3260)
API_PORT = 8260

# A unit's options by name; a flag has no value.
Options = Mapping[str, str | None]


class ConfigError(ValueError):
    """A setting cannot be; the text says which, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server lets in. Past a limit the newcomer is refused; nobody else notices."""

    login_timeout: int = 15  # seconds that a login may take
    # Seconds of silence after which an initiator is pinged, 0: never; and those it has to answer.
    # Off by default: TCP finds a dead host within a minute, while an initiator without a thread of
    # its own answers no ping as long as its program is busy elsewhere. libiscsi then comes back by
    # itself, but as a new nexus: seen with 1 s, an idle program's next command ended with 6/29/00.
    ping_interval: int = 0
    ping_timeout: int = 30
    connections: int = 1024  # at one portal
    connections_per_initiator: int = 256
    sessions: int = 1024  # at one target


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """`--disk NAME=PATH[,size=S][,block=512|4096][,physical=N][,thin][,readonly][,removable]`.

    `rate=S` is how many bytes a second FORMAT UNIT and SANITIZE overwrite at the most. `cdb32`
    offers commands of 32 bytes too, which SBC-4 wants with type 2 protection only.
    A snapshot waits until nothing has changed the disk for `quiet=S` seconds (3), which it does for
    `quiet-timeout=S` seconds at the most (80). Snapshots lie in the folder `snapshots=DIR`, beside
    the file unless told, and keep what is overwritten in pieces of `chunk=S` bytes (64 KiB).
    Two more make a disk to test hosts with: `bad=LBA[-LBA][:...]`, blocks that cannot be read until
    they are written, and `delay=MS`, milliseconds before every read and write.
    """

    KEYS: ClassVar = (
        *("size", "block", "physical", "rate"),
        *("quiet", "quiet-timeout", "snapshots", "chunk"),
        *("bad", "delay"),
    )
    FLAGS: ClassVar = ("thin", "readonly", "removable", "cdb32")

    name: str
    path: Path
    size: int | None = None
    block_size: int = 512
    thin: bool = False
    readonly: bool = False
    removable: bool = False
    long_cdbs: bool = False
    operation_rate: int = 0
    physical_size: int = 0  # bytes of a physical block, 0: those of a logical one
    bad: tuple[tuple[int, int], ...] = ()  # first and last LBA
    delay: float = 0  # seconds
    quiet: float = 3.0  # seconds
    quiet_timeout: float = 80.0  # seconds
    snapshots: Path | None = None
    chunk: int = 64 << 10  # bytes

    @classmethod
    def parse(cls, text: str) -> "DiskConfig":
        """Read the command line form. Raises ConfigError."""
        return cls.make(*_split(text, "--disk"), where="--disk")

    @classmethod
    def make(cls, name: str, path: Path, options: Options, *, where: str) -> "DiskConfig":
        """Check the options; `where` they were found is said if they cannot be."""
        where = f"{where} {name}"
        _check_options(options, cls.KEYS, cls.FLAGS, where)
        text = options.get("block", "512")
        block = next((size for size in BLOCK_SIZES if text == str(size)), None)
        if block is None:
            raise ConfigError(f"{where}: block={text}; it can be 512 or 4096")
        size = _size(options, "size", where)
        if size is not None and (size <= 0 or size % block):
            raise ConfigError(f"{where}: size={size} is not a whole number of {block}s")
        physical = _size(options, "physical", where) or block
        if physical < block or physical & (physical - 1) or physical > _LARGEST_PHYSICAL:
            raise ConfigError(
                f"{where}: physical={physical}; it can be {block} times a power of two, up to "
                f"{_LARGEST_PHYSICAL}"
            )
        return cls(
            name,
            path,
            size,
            block,
            "thin" in options,
            "readonly" in options,
            "removable" in options,
            "cdb32" in options,
            _size(options, "rate", where) or 0,
            physical,
            _bad_blocks(options, where),
            _delay(options, where),
            _seconds(options, "quiet", 3.0, where),
            _seconds(options, "quiet-timeout", 80.0, where),
            _folder(options, path, where),
            _chunk(options, where),
        )


def _bad_blocks(options: Options, where: str) -> tuple[tuple[int, int], ...]:
    found = []
    for part in (options.get("bad") or "").split(":") if "bad" in options else ():
        first, _, last = part.partition("-")
        if (
            not first.isdecimal()
            or not (last or first).isdecimal()
            or int(last or first) < int(first)
        ):
            raise ConfigError(f"{where}: bad={part}; write LBA or LBA-LBA, with colons between")
        found.append((int(first), int(last or first)))
    return tuple(found)


def _delay(options: Options, where: str) -> float:
    text = options.get("delay") or "0"
    if not text.isdecimal() or int(text) > _LONGEST_DELAY:
        raise ConfigError(f"{where}: delay={text}; it can be 0 to {_LONGEST_DELAY} milliseconds")
    return int(text) / 1000


def _seconds(options: Options, key: str, default: float, where: str) -> float:
    text = options.get(key)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_WAIT:  # neither is NaN
        raise ConfigError(f"{where}: {key}={text}; it can be 0 to {_LONGEST_WAIT} seconds")
    return seconds


def _folder(options: Options, path: Path, where: str) -> Path | None:
    text = options.get("snapshots")
    if text is None:
        return None
    if not text:
        raise ConfigError(f"{where}: snapshots= names no folder")
    folder = Path(text)
    if folder.resolve() == path.resolve():
        raise ConfigError(f"{where}: snapshots={text} is the disk itself")
    return folder


def _chunk(options: Options, where: str) -> int:
    chunk = _size(options, "chunk", where)
    low, high = _CHUNKS
    if chunk is None:
        return 64 << 10
    if not low <= chunk <= high or chunk & (chunk - 1):
        raise ConfigError(f"{where}: chunk={chunk}; it can be a power of two from {low} to {high}")
    return chunk


@dataclass(frozen=True, slots=True)
class TapeConfig:
    """`--tape NAME=DIR[,capacity=S][,profile=own|lto5|...|lto9]`.

    The profile is what the drive gives itself out as, for software that knows drives by name.
    """

    KEYS: ClassVar = ("capacity", "profile")
    FLAGS: ClassVar = ()

    name: str
    path: Path
    capacity: int | None = None
    profile: str = "own"

    @classmethod
    def parse(cls, text: str) -> "TapeConfig":
        """Read the command line form. Raises ConfigError."""
        return cls.make(*_split(text, "--tape"), where="--tape")

    @classmethod
    def make(cls, name: str, path: Path, options: Options, *, where: str) -> "TapeConfig":
        """Check the options; `where` they were found is said if they cannot be."""
        where = f"{where} {name}"
        _check_options(options, cls.KEYS, cls.FLAGS, where)
        profile = options.get("profile") or "own"
        if profile not in PROFILES:
            raise ConfigError(f"{where}: profile={profile}; there are {', '.join(PROFILES)}")
        return cls(name, path, _size(options, "capacity", where), profile)


UnitConfig = DiskConfig | TapeConfig


@dataclass(frozen=True, slots=True)
class Publication:
    """How a target is shown: to whom, where, under what other name. `groups` None: everywhere."""

    alias: str = ""
    groups: frozenset[int] | None = None
    access: tuple[Entry, ...] = (Entry("*"),)
    redirect: Redirect | None = None


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """A target with its units by LUN."""

    iqn: str
    units: Mapping[int, UnitConfig]
    publication: Publication = Publication()


@dataclass(frozen=True, slots=True)
class MoverConfig:
    """A copy manager of its own, the portals that it finds units at, and who it is there."""

    iqn: str
    reach: tuple[Portal, ...]
    login: Login = NOBODY
    publication: Publication = Publication()


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that one process serves. `discovery`: who may ask what there is, None anybody.

    `api` is where the management API listens, None nowhere; beyond loopback only if `api_public`.
    """

    targets: tuple[TargetConfig, ...] = ()
    movers: tuple[MoverConfig, ...] = ()
    portals: tuple[Portal, ...] = (DEFAULT_PORTAL,)
    advertise: tuple[Portal, ...] = ()
    limits: Limits = Limits()
    discovery: Account | None = None
    api: Portal | None = None
    api_public: bool = False

    @property
    def served(self) -> "list[TargetConfig | MoverConfig]":
        """Return targets and data movers."""
        return [*self.targets, *self.movers]


def parse_api(text: str) -> Portal:
    """Read where the management API shall listen: HOST[:PORT]. Raises InvalidName."""
    return Portal.parse(text, API_PORT)


def check_api(api: Portal, *, public: bool, where: str) -> None:
    """Refuse an address that others could reach, unless that was asked for. Raises ConfigError.

    What passes there is not encrypted, nor is the token.
    """
    try:
        alone = ip_address(api.host).is_loopback
    except ValueError:
        alone = api.host.lower() == "localhost"
    if not alone and not public:
        raise ConfigError(
            f"{where}: {api.host} is not this machine's loopback, and the API is not encrypted: "
            "listen at 127.0.0.1, or say that you want it (--api-public, api_public = true)"
        )


def lun_order(units: "list[UnitConfig]") -> dict[int, UnitConfig]:
    """Give units LUNs from 0 in the order given. Raises ConfigError for two of one name."""
    names = [unit.name for unit in units]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two units are named {name}")
    return dict(enumerate(units))


def _split(text: str, what: str) -> tuple[str, Path, dict[str, str | None]]:
    definition, *words = text.split(",")
    name, equals, path = definition.partition("=")
    if not name or not equals or not path:
        raise ConfigError(f"{what} {text!r}: write NAME=PATH, then options with commas before them")
    options: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key in options:
            raise ConfigError(f"{what} {name}: option {word!r} is unknown or said twice")
        options[key] = value if equals else None
    return name, Path(path), options


def _check_options(
    options: Options, keys: tuple[str, ...], flags: tuple[str, ...], where: str
) -> None:
    for key, value in options.items():
        if key not in (flags if value is None else keys):
            allowed = ", ".join([f"{key}=" for key in keys] + list(flags))
            said = key if value is None else f"{key}={value}"
            raise ConfigError(f"{where}: option {said!r} is unknown or said twice ({allowed})")


def _size(options: Options, key: str, where: str) -> int | None:
    text = options.get(key)
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {key}: {error}") from None
