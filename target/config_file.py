"""The configuration file: TOML, read through one gate that says where a setting is wrong and why.

    [server]                          # all of it has defaults
    portals = ["192.0.2.1:3260", "192.0.2.2:3260,2"]      # ",N": portal group, 1 unless told
    [account.backup]                  # CHAP: a secret lies in a file or the environment, never here
    user = "backup"
    secret_file = "backup.secret"
    [[target]]
    iqn = "iqn.2026-11.com.example:storage"
    [[target.disk]]
    name = "data"
    path = "data.img"
    [[target.access]]
    initiator = "iqn.2026-11.com.example:*"
    account = "backup"

Paths are relative to the file's folder. The README has an example with everything in it.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from serverfree.initiator.secrets import (
    Login,
    SecretError,
    read_secret_file,
    read_secret_variable,
)
from serverfree.iscsi.chap import Account, Credentials
from serverfree.iscsi.names import InvalidName, Portal, normalize_name
from serverfree.target.access import WILDCARD, Entry, LunMapping, Redirect
from serverfree.target.config import (
    DEFAULT_PORTAL,
    Config,
    ConfigError,
    DiskConfig,
    Limits,
    MoverConfig,
    Options,
    Publication,
    TapeConfig,
    TargetConfig,
    UnitConfig,
    check_api,
    parse_api,
)

MAX_LUN = 16383  # flat space addressing, SAM-5 4.7.5
_T = TypeVar("_T")
_REQUIRED: Any = object()
_LIMITS = {
    "login_timeout": (1, 3600),
    "ping_interval": (0, 3600),
    "ping_timeout": (1, 3600),
    "connections": (1, 65536),
    "connections_per_initiator": (1, 65536),
    "sessions": (1, 65535),
}
_FRACTIONS = ("quiet", "quiet-timeout")  # seconds need not be whole
_UNITS: dict[str, Callable[..., UnitConfig]] = {"disk": DiskConfig.make, "tape": TapeConfig.make}


class _Table:
    """A TOML table that remembers where it stands and which of its keys nobody has asked for."""

    def __init__(self, file: Path, where: str, content: Mapping[str, Any]) -> None:
        self.file = file
        self._where = where
        self._content = content
        self._left = set(content)

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def place(self, key: str) -> str:
        """Name the file and the key, as every message begins."""
        return f"{self.file}: {f'{self._where}.{key}' if self._where else key}"

    def wrong(self, key: str, allowed: str, found: object) -> ConfigError:
        """Say what is allowed and what was found."""
        return ConfigError(f"{self.place(key)}: {allowed}; found {found!r}")

    def take(self, key: str, kind: type[_T], allowed: str, default: Any = _REQUIRED) -> _T:
        """Return a value that has to be of this kind. Raises ConfigError."""
        self._left.discard(key)
        if key not in self._content:
            if default is _REQUIRED:
                raise ConfigError(f"{self.place(key)} is missing: {allowed}")
            value: _T = default
            return value
        value = self._content[key]
        # bool is an int to Python, but `lun = true` is a mistake.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, allowed, value)
        return value

    def text(self, key: str, allowed: str = "a text", default: Any = _REQUIRED) -> str:
        """Return a text that is not empty, unless that is the default."""
        value = self.take(key, str, allowed, default)
        if value == "" and default != "":
            raise self.wrong(key, allowed, value)
        return value

    def number(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> int:
        """Return a number of this range."""
        allowed = f"a number from {low} to {high}"
        value = self.take(key, int, allowed, default)
        if not low <= value <= high:
            raise self.wrong(key, allowed, value)
        return value

    def flag(self, key: str) -> bool:
        """Return true or false; false unless told."""
        return self.take(key, bool, "true or false", False)

    def parsed(self, key: str, parse: Callable[[str], _T], default: Any = _REQUIRED) -> _T:
        """Return a text as `parse` reads it."""
        if key not in self and default is not _REQUIRED:
            value: _T = default
            return value
        return self._parse(key, self.text(key), parse)

    def list_of(self, key: str, parse: Callable[[str], _T]) -> tuple[_T, ...] | None:
        """Return a list of texts as `parse` reads them, None where there is none."""
        if key not in self:
            return None
        items = self.take(key, list, "a list of texts")
        for number, item in enumerate(items):
            if not isinstance(item, str):
                raise self.wrong(f"{key}[{number}]", "a text", item)
        if not items:
            raise self.wrong(key, "at least one", items)
        return tuple(
            self._parse(f"{key}[{number}]", item, parse) for number, item in enumerate(items)
        )

    def _parse(self, key: str, text: str, parse: Callable[[str], _T]) -> _T:
        try:
            return parse(text)
        except (InvalidName, ValueError) as error:
            raise ConfigError(f"{self.place(key)}: {error}") from None

    def table(self, key: str) -> "_Table":
        """Return a table; an empty one where there is none."""
        return self._nested(key, self.take(key, dict, f"a table, [{key}]", {}))

    def tables(self, key: str) -> Iterator["_Table"]:
        """Yield the tables of an array."""
        items = self.take(key, list, f"tables, each begun by [[{key}]]", [])
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                raise self.wrong(f"{key}[{number}]", "a table", item)
            yield self._nested(f"{key}[{number}]", item)

    def named(self, key: str) -> Iterator[tuple[str, "_Table"]]:
        """Yield the tables of a table of tables."""
        table = self.table(key)
        for name in table._content:
            yield name, table.table(name)

    def _nested(self, key: str, content: Mapping[str, Any]) -> "_Table":
        return _Table(self.file, f"{self._where}.{key}" if self._where else key, content)

    def options(self) -> Options:
        """Return everything that is left as options of a unit."""
        options: dict[str, str | None] = {}
        for key in sorted(self._left):
            value = self._content[key]
            if value is False:
                continue
            broken = isinstance(value, float) and key in _FRACTIONS
            if not isinstance(value, str | int) and not broken:
                raise self.wrong(key, "a text, a number, true or false", value)
            options[key] = None if value is True else str(value)
        self._left.clear()
        return options

    def end(self, *known: str) -> None:
        """Refuse what nobody has asked for. `known` adds names to those in the message."""
        if self._left:
            allowed = sorted({*self._content, *known} - self._left)
            raise ConfigError(
                f"{self.place(sorted(self._left)[0])}: no such setting; there are "
                f"{', '.join(allowed) or 'none'}"
            )


def load(path: Path, portals: tuple[Portal, ...] = (DEFAULT_PORTAL,)) -> Config:
    """Read a configuration file. Raises ConfigError, whose text names file, key, and what may be.

    `portals` are those to listen at if the file names none.
    Secrets are read along; their files must be closed to everybody else.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return _Reader(path, content).config(portals)


class _Reader:
    """One file on its way to a Config."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self._root = _Table(path, "", content)
        self._folder = path.parent
        self._accounts: dict[str, tuple[Credentials, Credentials | None]] = {}
        self._groups: set[int] = set()

    def config(self, default_portals: tuple[Portal, ...]) -> Config:
        """Return everything that the file says."""
        self._accounts = {name: self._account(name, t) for name, t in self._root.named("account")}
        server = self._root.table("server")
        portals = server.list_of("portals", Portal.parse) or default_portals
        advertise = server.list_of("advertise", Portal.parse) or ()
        discovery = self._reference(server, "discovery_account")
        api = server.parsed("api", parse_api, None)
        api_public = server.flag("api_public")
        if api is not None:
            check_api(api, public=api_public, where=server.place("api"))
        server.end("portals", "advertise", "discovery_account", "api", "api_public")
        self._groups = {portal.group_tag for portal in portals}
        targets = tuple(self._target(table) for table in self._root.tables("target"))
        movers = tuple(self._mover(table) for table in self._root.tables("datamover"))
        limits = self._limits(self._root.table("limits"))
        self._root.end("account", "server", "target", "datamover", "limits")
        names = [target.iqn for target in targets] + [mover.iqn for mover in movers]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{self._root.file}: two targets are named {name}")
        if not names:
            raise ConfigError(f"{self._root.file}: neither a [[target]] nor a [[datamover]]")
        return Config(
            targets, movers, portals, advertise, limits, discovery, api=api, api_public=api_public
        )

    def _limits(self, table: _Table) -> Limits:
        values = {
            name: table.number(name, low, high, getattr(Limits(), name))
            for name, (low, high) in _LIMITS.items()
        }
        table.end(*_LIMITS)
        return Limits(**values)

    # ---------------------------------------------------------------- accounts

    def _account(self, name: str, table: _Table) -> tuple[Credentials, Credentials | None]:
        """Read the account of that name: who comes, and by whom the other side proves itself."""
        credentials = self._credentials(table, "", name)
        mutual = None
        if "target_user" in table:
            mutual = self._credentials(table, "target_", None)
        table.end("user", "secret_file", "secret_env",
                  "target_user", "target_secret_file", "target_secret_env")  # fmt: skip
        try:
            Account(credentials, mutual)
        except ValueError as error:
            raise ConfigError(f"{table.place('target_user')}: {error}") from None
        return credentials, mutual

    def _credentials(self, table: _Table, prefix: str, name: str | None) -> Credentials:
        user = table.text(f"{prefix}user", default=_REQUIRED if name is None else name)
        file_key, variable_key = f"{prefix}secret_file", f"{prefix}secret_env"
        if (file_key in table) == (variable_key in table):
            raise ConfigError(
                f"{table.place(file_key)}: give {file_key} = PATH or {variable_key} = VARIABLE"
            )
        key = file_key if file_key in table else variable_key
        try:
            if key == file_key:
                secret = read_secret_file(self._folder / table.text(key))
            else:
                secret = read_secret_variable(table.text(key))
            return Credentials(user, secret)
        except (SecretError, ValueError) as error:
            raise ConfigError(f"{table.place(key)}: {error}") from None

    def _reference(self, table: _Table, key: str) -> Account | None:
        found = self._named_account(table, key)
        return None if found is None else Account(*found)

    def _named_account(
        self, table: _Table, key: str
    ) -> tuple[Credentials, Credentials | None] | None:
        if key not in table:
            return None
        name = table.text(key)
        if name not in self._accounts:
            known = ", ".join(self._accounts) or "none"
            raise table.wrong(key, f"the name of an [account.NAME] (there are: {known})", name)
        return self._accounts[name]

    # ---------------------------------------------------------------- targets

    def _target(self, table: _Table) -> TargetConfig:
        iqn = table.parsed("iqn", normalize_name)
        units = self._units(table)
        publication = self._publication(table, {unit.name for unit in units.values()})
        table.end("iqn", "disk", "tape", "alias", "portal_groups", "redirect", "account", "access")
        if not units and publication.redirect is None:
            raise ConfigError(f"{table.place('disk')}: a target needs a disk, a tape or a redirect")
        return TargetConfig(iqn, units, publication)

    def _mover(self, table: _Table) -> MoverConfig:
        iqn = table.parsed("iqn", normalize_name)
        reach = table.list_of("reach", Portal.parse)
        if reach is None:
            raise ConfigError(f"{table.place('reach')} is missing: the portals to find units at")
        login = Login(*(self._named_account(table, "reach_account") or ()))
        publication = self._publication(table, None)
        table.end("iqn", "reach", "reach_account", "alias", "portal_groups", "redirect",
                  "account", "access")  # fmt: skip
        return MoverConfig(iqn, reach, login, publication)

    def _units(self, target: _Table) -> dict[int, UnitConfig]:
        """Read disks, then tapes; LUNs are those said, or the lowest free ones in this order."""
        made: list[tuple[int | None, UnitConfig, _Table]] = []
        for kind, make in _UNITS.items():
            for table in target.tables(kind):
                lun = table.number("lun", 0, MAX_LUN) if "lun" in table else None
                name = table.text("name")
                path = self._folder / table.text("path")
                options = table.options()
                if folder := options.get("snapshots"):
                    options = {**options, "snapshots": str(self._folder / folder)}
                unit = make(name, path, options, where=table.place("").rstrip("."))
                made.append((lun, unit, table))
        by_lun: dict[int, UnitConfig] = {}
        names: set[str] = set()
        for lun, unit, table in made:
            if unit.name in names:
                raise table.wrong("name", "a name that no other unit of the target has", unit.name)
            names.add(unit.name)
            if lun is not None and by_lun.setdefault(lun, unit) is not unit:
                raise table.wrong("lun", "a LUN that no other unit of the target has", lun)
        free = (number for number in range(MAX_LUN + 1) if number not in by_lun)
        for lun, unit, _ in made:
            if lun is None:
                by_lun[next(free)] = unit
        return dict(sorted(by_lun.items()))

    def _publication(self, table: _Table, units: set[str] | None) -> Publication:
        account = self._reference(table, "account")
        entries = tuple(self._entry(one, units, account) for one in table.tables("access"))
        return Publication(
            alias=table.text("alias", default=""),
            groups=self._portal_groups(table),
            access=entries if "access" in table else (Entry(WILDCARD, account=account),),
            redirect=self._redirect(table),
        )

    def _portal_groups(self, table: _Table) -> frozenset[int] | None:
        if "portal_groups" not in table:
            return None
        known = ", ".join(map(str, sorted(self._groups)))
        groups = table.take("portal_groups", list, f"a list of portal groups ({known})")
        for group in groups:
            if isinstance(group, bool) or group not in self._groups:
                raise table.wrong(
                    "portal_groups", f"portal groups of server.portals ({known})", group
                )
        return frozenset(groups)

    def _redirect(self, table: _Table) -> Redirect | None:
        if "redirect" not in table:
            return None
        redirect = table.table("redirect")
        made = Redirect(redirect.parsed("portal", Portal.parse), redirect.flag("permanent"))
        redirect.end("portal", "permanent")
        return made

    def _entry(self, table: _Table, units: set[str] | None, account: Account | None) -> Entry:
        initiator = table.parsed("initiator", _initiator)
        own = self._reference(table, "account")
        luns = self._mappings(table, units)
        entry = Entry(initiator, luns, table.flag("read_only"), own or account)
        table.end("initiator", "account", "luns", "read_only")
        return entry

    def _mappings(self, table: _Table, units: set[str] | None) -> tuple[LunMapping, ...] | None:
        if "luns" not in table:
            return None
        mappings: list[LunMapping] = []
        for one in table.tables("luns"):
            lun = one.number("lun", 0, MAX_LUN)
            unit = one.text("unit")
            if units is None or unit not in units:
                known = ", ".join(sorted(units or ())) or "none"
                raise one.wrong("unit", f"the name of a unit of the target ({known})", unit)
            if any(lun == other.lun for other in mappings):
                raise one.wrong("lun", "a LUN that no other unit has", lun)
            mappings.append(LunMapping(lun, unit, one.flag("read_only")))
            one.end("lun", "unit", "read_only")
        return tuple(mappings)


def _initiator(text: str) -> str:
    """Read an initiator's name, whole or up to a trailing `*`."""
    if text.endswith(WILDCARD):
        beginning = text[: -len(WILDCARD)].lower()
        if WILDCARD in beginning:
            raise ValueError(f"{text!r}: the * stands for the end of a name only")
        return beginning + WILDCARD
    return normalize_name(text)
