"""From a configuration to a running server, and to the next configuration while it runs."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from serverfree.datamover.buffers import BufferPool
from serverfree.datamover.fabric import NetworkFabric
from serverfree.datamover.manager import CopyManager
from serverfree.datamover.offload import Offload
from serverfree.datamover.rod_tokens import RodTokens
from serverfree.iscsi.chap import Account
from serverfree.iscsi.names import Portal
from serverfree.target.access import AccessList
from serverfree.target.backstore.base import BlockStore
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.faulty import FaultyStore
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.journal import journal_path
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from serverfree.target.backstore.state import StateFile, snapshot_folder, state_path
from serverfree.target.config import (
    Config,
    ConfigError,
    DiskConfig,
    MoverConfig,
    Publication,
    TapeConfig,
    TargetConfig,
    UnitConfig,
)
from serverfree.target.server import WILDCARDS, Server
from serverfree.target.session import Target
from serverfree.target.snapshots import Snapshots
from serverfree.target.units.base import Unit
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.controller import CopyController
from serverfree.target.units.local_fabric import LocalFabric
from serverfree.target.units.rod_medium import RodMedium
from serverfree.target.units.stream import StreamUnit
from serverfree.target.units.stream_profile import PROFILES

log = logging.getLogger(__name__)

COPY_MANAGER = "copy-manager"  # the name of a data mover's only unit


class Service:
    """What a configuration describes, served from `start` to `stop`.

    For one thread, but for `snapshots`, `targets` and `url`.
    """

    def __init__(self, config: Config) -> None:
        """Open every unit. Raises OSError or StoreError; then nothing is left open."""
        self._served: dict[str, Mapping[int, UnitConfig] | MoverConfig] = {}
        self._fabrics: list[NetworkFabric] = []
        self._pool = BufferPool()
        self._rod_tokens: dict[str, RodTokens] = {}
        self._api = config.api
        self.snapshots = Snapshots(self._lend_copy_manager)
        """The snapshots of the disks."""
        with ExitStack() as opened:
            targets = []
            for wanted in config.served:
                target = self._open(wanted)
                opened.callback(target.close)
                targets.append(target)
            opened.pop_all()
        self._server = Server(targets, config.portals)
        self._set_up(config)
        self._adopt(config)

    def start(self) -> list[Portal]:
        """Listen, and return the portals' addresses. Raises OSError."""
        try:
            return self._server.start()
        except OSError:
            self.stop()
            raise

    def stop(self) -> None:
        """End every connection; everything that was acknowledged is on stable storage then."""
        self.snapshots.close()
        for tokens in self._rod_tokens.values():
            tokens.close()
        self._server.stop()
        for fabric in self._fabrics:
            fabric.close()

    @property
    def targets(self) -> Sequence[Target]:
        """The targets of this moment."""
        return self._server.targets

    def url(self, target: Target, lun: int, here: str = "") -> str:
        """Return where a unit can be reached: at the first portal that leads to its target.

        One that listens everywhere is named by the first advertised address, or else by `here`,
        where that is given: an address of this machine that whoever asks has reached.
        """
        groups = target.groups
        portals = self._server.addresses
        portal = next((one for one in portals if groups is None or one.group_tag in groups), None)
        if here and portal and portal.host in WILDCARDS:
            advertised = self._server.advertise
            portal = advertised[0] if advertised else Portal(here, portal.port)
        return f"iscsi://{portal or ''}/{target.name}/{lun}"

    def reload(self, config: Config) -> None:
        """Serve this from now on; sessions go on.

        New targets, units and access entries appear, and sessions hear of units that come to them
        or go from them. A target that is gone takes no logins any more; a unit that is gone ends
        its commands, and a portal that is gone its connections. Raises ConfigError for what cannot
        change while it is served, and OSError or StoreError for a unit that cannot be opened and a
        portal that cannot be had; then everything is as it was.
        """
        with self.snapshots.changing():  # units come and go by its hand too
            self._reload(config)

    def _reload(self, config: Config) -> None:
        self._require_possible(config)
        with ExitStack() as opened:
            made: list[Target] = []
            more: dict[str, dict[int, Unit]] = {}
            for wanted in config.served:
                if wanted.iqn not in self._served:
                    made.append(self._open(wanted))
                    opened.callback(made[-1].close)
                elif isinstance(wanted, TargetConfig):
                    more[wanted.iqn] = self._open_new_units(wanted, opened)
            move = self._server.move_to(config.portals)
            opened.pop_all()
        # From here on nothing can fail.
        for target in made:
            self._server.add_target(target)
        self._take_away(config)
        for iqn, units in more.items():
            target = self._server.find_target(iqn)
            for lun, unit in units.items():
                self._lend_copy_manager(target, unit)
                target.add(lun, unit)
        self._set_up(config)
        self._adopt(config)
        for target in self._server.targets:
            target.refresh()
        move()

    # ---------------------------------------------------------------- opening

    def _open(self, wanted: TargetConfig | MoverConfig) -> Target:
        if isinstance(wanted, MoverConfig):
            fabric = NetworkFabric(
                wanted.reach,
                initiator_name=wanted.iqn,
                login=wanted.login,
            )
            self._fabrics.append(fabric)
            controller = CopyController(COPY_MANAGER, CopyManager(fabric), target=wanted.iqn)
            return Target(wanted.iqn, [controller])
        target = Target(wanted.iqn)
        with ExitStack() as opened:  # what is open is closed again if a later one fails
            opened.callback(target.close)
            for lun, config in wanted.units.items():
                unit = _open_unit(config, wanted.iqn)
                self._lend_copy_manager(target, unit)
                target.add(lun, unit)
            opened.pop_all()
        return target

    def _open_new_units(self, wanted: TargetConfig, opened: ExitStack) -> dict[int, Unit]:
        served = self._served[wanted.iqn]
        assert not isinstance(served, MoverConfig)
        units: dict[int, Unit] = {}
        for lun, config in wanted.units.items():
            if config not in served.values():
                units[lun] = unit = _open_unit(config, wanted.iqn)
                opened.callback(unit.close)
        return units

    def _adopt(self, config: Config) -> None:
        """Let there be snapshots of the disks that are new, with those that they had before."""
        for one in config.targets:
            target = self._server.find_target(one.iqn)
            for lun, disk in one.units.items():
                unit = target.units[lun]
                if isinstance(disk, DiskConfig) and isinstance(unit, BlockUnit):
                    self.snapshots.adopt(target, unit, disk.quiet, disk.quiet_timeout)

    def _lend_copy_manager(self, target: Target, unit: Unit) -> None:
        """Give a unit a copy manager for copies among the units of its target."""
        fabric = LocalFabric(
            target.name, lambda: list(target.units.values()), permission=target.permission
        )
        tokens = self._rod_tokens.setdefault(target.name, RodTokens(target.name, watch=True))
        medium = RodMedium(unit) if isinstance(unit, BlockUnit) else None
        unit.copy_manager = CopyManager(
            fabric,
            own_unit=unit.designator,
            pool=self._pool,
            offload=Offload(unit.designator, tokens, medium),
        )

    def _cancel_tokens(self, target: Target, unit: object) -> None:
        """Nobody can read what a unit that goes has given tokens for."""
        if isinstance(unit, Unit) and target.name in self._rod_tokens:
            self._rod_tokens[target.name].cancel(unit.designator)

    # ---------------------------------------------------------------- changing

    def _require_possible(self, config: Config) -> None:
        if config.api != self._api:
            raise ConfigError("the address of the management API cannot change while it is served")
        for wanted in config.served:
            served = self._served.get(wanted.iqn)
            if served is None:
                continue
            if isinstance(wanted, MoverConfig) or isinstance(served, MoverConfig):
                if isinstance(wanted, TargetConfig) or (wanted.reach, wanted.login) != (
                    (served.reach, served.login) if isinstance(served, MoverConfig) else ()
                ):
                    raise ConfigError(f"datamover {wanted.iqn} cannot change while it is served")
                continue
            _require_same_units(wanted, served)
            self._require_free_luns(wanted)

    def _require_free_luns(self, wanted: TargetConfig) -> None:
        target = next((one for one in self._server.targets if one.name == wanted.iqn), None)
        if target is None:  # retired: its snapshots are not shown
            return
        taken = self.snapshots.luns(target)
        mapped = {
            mapping.lun for entry in wanted.publication.access for mapping in entry.luns or ()
        }
        for lun in sorted((wanted.units.keys() | mapped) & taken.keys()):
            raise ConfigError(
                f"target {wanted.iqn}: LUN {lun} is that of snapshot {taken[lun]}: choose another, "
                "or delete the snapshot first"
            )

    def _take_away(self, config: Config) -> None:
        """Targets that are gone take no more logins; units that are gone are closed."""
        wanted = {one.iqn: one for one in config.served}
        for target in list(self._server.targets):
            if target.name not in wanted:
                for unit in list(target.units.values()):  # its snapshots go from there
                    self.snapshots.leave(unit)
                    self._cancel_tokens(target, unit)
                self._server.remove_target(target.name)
        for iqn, one in wanted.items():
            target = self._server.restore_target(iqn) or self._server.find_target(iqn)
            served = self._served.get(iqn)
            if isinstance(one, TargetConfig) and isinstance(served, Mapping):
                for lun, unit_config in served.items():
                    if unit_config not in one.units.values():
                        self.snapshots.leave(target.units[lun])
                        self._cancel_tokens(target, target.units[lun])
                        target.remove_unit(lun)

    def _set_up(self, config: Config) -> None:
        """Everything but units: who may come in, under which names, within which limits."""
        self._server.advertise = config.advertise
        self._server.limits = config.limits
        self._server.discovery = _by_name(config.discovery)
        for wanted in config.served:
            target = self._server.find_target(wanted.iqn)
            self._served[wanted.iqn] = wanted if isinstance(wanted, MoverConfig) else wanted.units
            _publish(target, wanted.publication)
            target.max_sessions = config.limits.sessions
            groups = {portal.group_tag for portal in config.portals}
            published = wanted.publication.groups
            target.ports = sorted(groups if published is None else groups & published)


def _open_unit(config: UnitConfig, iqn: str) -> Unit:
    if isinstance(config, TapeConfig):
        cartridge = open_cartridge(config.path, capacity=config.capacity)
        state = StateFile(state_path(config.path))
        profile = PROFILES[config.profile]
        return StreamUnit(config.name, cartridge, target=iqn, state=state, profile=profile)
    with ExitStack() as opened:
        file = open_file_store(
            config.path, size=config.size, readonly=config.readonly, thin=config.thin
        )
        opened.callback(file.close)
        unit = _open_disk(config, iqn, file)
        opened.pop_all()
    return unit


def _open_disk(config: DiskConfig, iqn: str, file: BlockStore) -> Unit:
    # A medium that fails, fails under its snapshots too.
    store = _with_faults(file, config)
    # Nothing is written beside what may only be read, and nothing changes there.
    kept = None if config.readonly else config.path
    if kept is not None:
        store = SnapshotOrigin(
            store,
            snapshot_folder(kept, config.snapshots),
            source=kept,
            chunk=config.chunk,
        )
    return BlockUnit(
        config.name,
        store,
        block_size=config.block_size,
        physical_size=config.physical_size,
        removable=config.removable,
        long_cdbs=config.long_cdbs,
        operation_rate=config.operation_rate,
        target=iqn,
        state=None if kept is None else StateFile(state_path(kept)),
        journal=None if kept is None else journal_path(kept),
    )


def _with_faults(store: BlockStore, config: DiskConfig) -> BlockStore:
    if not config.bad and not config.delay:
        return store
    size = config.block_size
    return FaultyStore(
        store, [(first * size, (last + 1) * size) for first, last in config.bad], config.delay
    )


def _require_same_units(wanted: TargetConfig, served: Mapping[int, UnitConfig]) -> None:
    at = {config.name: (lun, config) for lun, config in served.items()}
    for lun, config in wanted.units.items():
        before = at.get(config.name)
        if before is None:
            continue
        if before[0] != lun:
            raise ConfigError(
                f"target {wanted.iqn}: unit {config.name} is at LUN {before[0]} and cannot move to "
                f"{lun} while it is served: give it lun = {before[0]}"
            )
        if before[1] != config:
            raise ConfigError(
                f"target {wanted.iqn}: unit {config.name} cannot change while it is served: take "
                "it out, reload, and put it back"
            )


def _by_name(account: Account | None) -> dict[str, Account]:
    return {} if account is None else {account.credentials.name: account}


def _publish(target: Target, publication: Publication) -> None:
    target.alias = publication.alias
    target.access = AccessList(publication.access)
    target.groups = publication.groups
    target.redirect = publication.redirect
