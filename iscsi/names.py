"""How iSCSI names things: nodes, ports, portals, and the URL of a logical unit."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlencode

from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.text import Pair

DEFAULT_PORT = 3260
MAX_NAME = 223  # bytes, RFC 7143 4.2.7.1

# RFC 7143 4.2.7.3-5. RFC 3722 forbids all ASCII specials but dash, dot and colon; names with an
# underscore are too common in the field to turn their initiators away.
_IQN = re.compile(r"iqn\.\d{4}-(0[1-9]|1[0-2])\.[^\s:]+(:.*)?")
_EUI = re.compile(r"eui\.[0-9a-f]{16}")
_NAA = re.compile(r"naa\.([0-9a-f]{16}|[0-9a-f]{32})")
_FORBIDDEN = re.compile(r"[\x00-\x2c/;-@\[-^`{-\x7f\s]")


class InvalidName(ProtocolError, ValueError):
    """What was given is not a name, a portal or a URL as the standard writes it."""


def normalize_name(name: str) -> str:
    """Return an iSCSI node name in the form to compare and send (RFC 3722). Raises InvalidName."""
    folded = unicodedata.normalize("NFKC", name).lower()
    if len(folded.encode()) > MAX_NAME:
        raise InvalidName(f"iSCSI name {name[:40]!r}... is longer than {MAX_NAME} bytes")
    if not any(form.fullmatch(folded) for form in (_IQN, _EUI, _NAA)) or _FORBIDDEN.search(folded):
        raise InvalidName(f"{name!r} is not an iqn., eui. or naa. name")
    return folded


def initiator_port_name(initiator_name: str, isid: bytes) -> str:
    """The SCSI initiator port name of an iSCSI session (RFC 7143 4.4.2)."""
    return f"{initiator_name},i,0x{isid.hex()}"


def target_port_name(target_name: str, portal_group_tag: int) -> str:
    """The SCSI target port name (RFC 7143 4.4.2)."""
    return f"{target_name},t,0x{portal_group_tag:04x}"


@dataclass(frozen=True, slots=True)
class Portal:
    """An address to connect to; `group_tag` as SendTargets tells it (13.8)."""

    host: str
    port: int = DEFAULT_PORT
    group_tag: int = 1

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PORT) -> "Portal":
        """Read `host`, `host:port`, `[v6]`, `[v6]:port`, each with `,tag` behind or not."""
        address, comma, tag = text.strip().partition(",")
        if address.startswith("["):
            host, bracket, rest = address[1:].partition("]")
            colon, port = rest[:1], rest[1:]
            good = bool(bracket) and colon in ("", ":") and ":" in host
        else:
            host, colon, port = address.partition(":")
            good = ":" not in port
        number = _decimal(port, 65535) if colon else default_port
        group_tag = _decimal(tag, 65535) if comma else 1
        if not good or not host or number is None or group_tag is None:
            raise InvalidName(f"{text!r} is not HOST:PORT or [IPV6]:PORT")
        return cls(host, number, group_tag)


def _decimal(text: str, highest: int) -> int | None:
    """Return a plain decimal number up to `highest`, else None."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    number = int(text)
    return number if number <= highest else None


@dataclass(frozen=True, slots=True)
class DiscoveredTarget:
    """One target as SendTargets tells of it."""

    name: str
    portals: tuple[Portal, ...] = ()


def send_targets_pairs(targets: Iterable[DiscoveredTarget]) -> list[Pair]:
    """Return the answer to SendTargets (Appendix C): each name, its addresses behind it."""
    pairs = []
    for target in targets:
        pairs.append(("TargetName", target.name))
        pairs += [("TargetAddress", f"{portal},{portal.group_tag}") for portal in target.portals]
    return pairs


def parse_send_targets(pairs: Iterable[Pair]) -> list[DiscoveredTarget]:
    """Read the answer to SendTargets; keys that are neither name nor address are passed over.

    A target named without an address is reached at the portal that was asked (Appendix C).
    Raises InvalidName.
    """
    found: list[tuple[str, list[Portal]]] = []
    for key, value in pairs:
        if key == "TargetName":
            found.append((normalize_name(value), []))
        elif key == "TargetAddress":
            if not found:
                raise InvalidName(f"TargetAddress {value!r} comes before any TargetName")
            found[-1][1].append(Portal.parse(value))
    return [DiscoveredTarget(name, tuple(portals)) for name, portals in found]


# What a URL may add, and the values that each can have; None: any text.
_URL_OPTIONS: dict[str, tuple[str, ...] | None] = {
    "header_digest": ("none", "crc32c"),
    "data_digest": ("none", "crc32c"),
    "target_user": None,
    "target_password": None,
    "auth": ("md5", "sha1", "sha-256", "sha3-256"),
}


def _url_options(query: str) -> dict[str, str]:
    options = {}
    for item in filter(None, query.split("&")):
        name, _, text = item.partition("=")
        value = unquote(text)
        allowed = _URL_OPTIONS.get(name, ())
        if allowed is not None and value.lower() not in allowed:
            known = ", ".join(
                name + (f"={'|'.join(values)}" if values else "=...")
                for name, values in _URL_OPTIONS.items()
            )
            raise InvalidName(f"a URL's options are {known}")
        options[name] = value if allowed is None else value.lower()
    return options


@dataclass(frozen=True, slots=True)
class Url:
    """`iscsi://[user[%password]@]host[:port]/target[/lun][?option=value&...]`, as in libiscsi.

    Options: `header_digest` and `data_digest`, `none` or `crc32c`; `target_user` and
    `target_password`, by which the target has to prove itself; `auth`, a CHAP algorithm. Its text
    never holds a password. `lun` is None where the URL names only the target.
    """

    host: str
    port: int
    target_name: str
    lun: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    header_digest: str | None = None
    data_digest: str | None = None
    target_user: str | None = None
    target_password: str | None = field(default=None, repr=False)
    auth: str | None = None

    @property
    def portal(self) -> Portal:
        return Portal(self.host, self.port)

    def __str__(self) -> str:
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        lun = "" if self.lun is None else f"/{self.lun}"
        shown = {
            name: value
            for name in _URL_OPTIONS
            if "password" not in name and (value := getattr(self, name)) is not None
        }
        options = f"?{urlencode(shown)}" if shown else ""
        return f"iscsi://{user}{self.portal}/{self.target_name}{lun}{options}"

    @classmethod
    def parse(cls, text: str) -> "Url":
        """Read a URL. Raises InvalidName, which does not repeat a password."""
        scheme, separator, rest = text.partition("://")
        address, _, path = rest.partition("/")
        login, at, portal_text = address.rpartition("@")
        user, percent, password = login.partition("%")
        path, _, query = path.partition("?")
        target_name, _, lun_text = path.partition("/")
        if scheme != "iscsi" or not separator or not target_name:
            raise InvalidName("a unit is named iscsi://HOST[:PORT]/TARGET-NAME/LUN")
        lun = _decimal(lun_text, 16383) if lun_text else None
        if lun_text and lun is None:
            raise InvalidName(f"LUN {lun_text!r} is not a number from 0 to 16383")
        portal = Portal.parse(portal_text)
        return cls(
            host=portal.host,
            port=portal.port,
            target_name=normalize_name(unquote(target_name)),
            lun=lun,
            user=unquote(user) if at else None,
            password=unquote(password) if percent else None,
            **_url_options(query),
        )
