"""The management API: what is served, who is logged in, and the snapshots of the disks."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from threading import Event
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from serverfree.target.api import models
from serverfree.target.api.guard import MOST_REQUESTS, App, Guard, own_address
from serverfree.target.api.problems import PROBLEM_JSON, install
from serverfree.target.backstore.quiet import Cancelled
from serverfree.target.service import Service
from serverfree.target.session import Target
from serverfree.target.snapshots import NotFound, ServedDisk, ServedSnapshot, Snapshots
from serverfree.target.units.base import Unit
from serverfree.target.units.block import BlockUnit

_DISK = Path(description="a disk's name or designator", min_length=1, max_length=256)
_SNAPSHOT = Path(description="a snapshot's name or designator", min_length=1, max_length=256)
DiskName = Annotated[str, _DISK]
SnapshotName = Annotated[str, _SNAPSHOT]
Generation = Annotated[
    int, Query(ge=0, le=models.LARGEST_GENERATION, description="of an earlier snapshot of the disk")
]

_TOKEN = "bearer"
_COMMON = {
    400: "the body is no JSON that could be read",
    401: "the token is missing or wrong",
    408: "the body did not come in time",
    413: "the body is too large",
    422: "the request is not as this document says",
    503: "too much is being asked at once, or the server stops",
}
_NOT_FOUND = {404: "there is no such disk or snapshot"}
_CONFLICT = {409: "it cannot be as things stand: type and detail say why"}
_TAKING = {
    409: "no quiet period came in time (not-quiet, with asked, timeout, waited and "
    "last_write_age), or the name is taken (conflict)",
    507: "the storage is full",
}


def make_app(service: Service, token: str) -> App:
    """Return the API over a service, for whoever has the token."""
    app = FastAPI(
        title="Serverfree storage management",
        version=_version(),
        description="Snapshots of disks, and what a server serves. Every request brings the token.",
        # Pages that load scripts from elsewhere, in a browser, without the token: no.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install(app)
    _add_facts(app, service)
    _add_snapshots(app, service)
    app.openapi = partial(_document, app)  # type: ignore[method-assign]
    return Guard(app, token)


def _version() -> str:
    try:
        return version("serverfree")
    except PackageNotFoundError:
        return "0"


# -------------------------------------------------------------------- facts


def _add_facts(app: FastAPI, service: Service) -> None:
    snapshots = service.snapshots

    @app.get("/health")
    def health() -> models.Health:
        """Whether the server answers."""
        return models.Health(
            status="ok",
            version=app.version,
            disks=len(list(_disks(service))),
            snapshots=len(snapshots.all()),
        )

    @app.get("/units")
    def units() -> list[models.Unit]:
        """Every logical unit."""
        return [
            models.Unit(**_unit_facts(service, target, lun, unit))
            for target in service.targets
            for lun, unit in sorted(target.units.items())
            if isinstance(unit, Unit)
        ]

    @app.get("/sessions")
    def sessions() -> list[models.Session]:
        """Every initiator that is logged in."""
        return [
            models.Session(
                target=target.name,
                initiator=session.initiator_name,
                isid=session.isid.hex(),
                tsih=session.tsih,
                luns=list(session.luns),
            )
            for target in service.targets
            for session in target.sessions()
        ]

    @app.get("/disks")
    def disks() -> list[models.Disk]:
        """Every disk, those included that no snapshot can be taken of."""
        with_snapshots = {id(disk.unit): disk for disk in snapshots.disks()}
        return [
            _disk(service, target, lun, unit, with_snapshots.get(id(unit)))
            for target, lun, unit in _disks(service)
        ]

    @app.get("/disks/{disk}/quiet", responses=_responses(_NOT_FOUND))
    def quiet(disk: DiskName) -> models.Quiet:
        """How long nothing has changed a disk: what a snapshot waits for."""
        found = snapshots.disk(disk)
        return models.Quiet(
            disk=found.unit.name,
            quiet=found.quiet_for(),
            quiet_period=found.quiet,
            quiet_timeout=found.timeout,
        )


def _disks(service: Service) -> "list[tuple[Target, int, BlockUnit]]":
    return [
        (target, lun, unit)
        for target in service.targets
        for lun, unit in sorted(target.units.items())
        if isinstance(unit, BlockUnit) and unit.snapshot_of is None
    ]


def _unit_facts(service: Service, target: Target, lun: int, unit: Unit) -> dict[str, Any]:
    return {
        "name": unit.name,
        "kind": unit.kind,
        "target": target.name,
        "lun": lun,
        "url": service.url(target, lun, own_address.get()),
        "designator": unit.designator.identifier.hex(),
        "serial": unit.serial,
    }


def _disk(
    service: Service, target: Target, lun: int, unit: BlockUnit, served: ServedDisk | None
) -> models.Disk:
    generations = [] if served is None else [one.generation for one in served.origin.snapshots()]
    return models.Disk(
        **_unit_facts(service, target, lun, unit),
        size=unit.size,
        block_size=unit.block_size,
        readonly=unit.store.readonly,
        snapshots=served is not None,
        quiet=None if served is None else served.quiet_for(),
        quiet_period=0.0 if served is None else served.quiet,
        quiet_timeout=0.0 if served is None else served.timeout,
        generation=max(generations, default=None),
    )


# -------------------------------------------------------------------- snapshots


def _add_snapshots(app: FastAPI, service: Service) -> None:
    snapshots = service.snapshots
    # Waiting takes a thread, and must not take those that answer everything else.
    waiting = ThreadPoolExecutor(MOST_REQUESTS, "snapshot")

    @app.get("/snapshots")
    def all_snapshots() -> list[models.Snapshot]:
        """Every snapshot, those of a disk oldest first."""
        return [_snapshot(service, one) for one in snapshots.all()]

    @app.get("/snapshots/{snapshot}", responses=_responses(_NOT_FOUND, _CONFLICT))
    def one_snapshot(snapshot: SnapshotName) -> models.Snapshot:
        """One snapshot."""
        return _snapshot(service, snapshots.find(snapshot))

    @app.post(
        "/disks/{disk}/snapshots",
        status_code=HTTP_201_CREATED,
        responses=_responses(_NOT_FOUND, _TAKING),
    )
    async def create(
        disk: DiskName, wish: models.SnapshotWish, request: Request
    ) -> models.Snapshot:
        """Wait until nothing has changed a disk for a while, then take a snapshot of it.

        Answers when the snapshot can be read at its URL. Who hangs up does not wait any more.
        """
        cancelled = Event()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(
            waiting,
            partial(
                snapshots.create,
                disk,
                quiet=wish.quiet,
                timeout=wish.timeout,
                name=wish.name,
                consistency=wish.consistency,
                cancelled=cancelled,
            ),
        )
        gone = asyncio.create_task(_hung_up(request))
        try:
            ends: list[asyncio.Future[Any]] = [work, gone]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                cancelled.set()
                await asyncio.to_thread(_forget, snapshots, await work)
                raise Cancelled
            return _snapshot(service, await work)
        finally:
            cancelled.set()
            gone.cancel()

    @app.delete(
        "/snapshots/{snapshot}",
        status_code=HTTP_204_NO_CONTENT,
        responses=_responses(_NOT_FOUND, _CONFLICT),
    )
    def delete(snapshot: SnapshotName, force: bool = False) -> Response:
        """Delete a snapshot; while it is read only by force."""
        snapshots.delete(snapshot, force=force)
        return Response(status_code=HTTP_204_NO_CONTENT)

    @app.get("/snapshots/{snapshot}/changes", responses=_responses(_NOT_FOUND, _CONFLICT))
    def changes(snapshot: SnapshotName, since: Generation) -> models.Changes:
        """What changed between an earlier generation of its disk and a snapshot."""
        extents, complete = snapshots.changes(snapshot, since)
        return models.Changes(extents=extents, complete=complete)


def _forget(snapshots: Snapshots, made: ServedSnapshot) -> None:
    """Delete a snapshot that came when nobody waited for it any more: nobody knows of it."""
    try:
        snapshots.delete(made.unit.serial, force=True)
    except NotFound:
        return


async def _hung_up(request: Request) -> None:
    """Return when whoever asked has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _snapshot(service: Service, one: ServedSnapshot) -> models.Snapshot:
    snapshot = one.snapshot
    return models.Snapshot(
        **_unit_facts(service, one.disk.target, one.lun, one.unit),
        disk=one.disk.unit.name,
        created=one.created,
        consistency=one.consistency,
        generation=snapshot.generation,
        size=snapshot.size,
        used=snapshot.used,
        invalid=None if snapshot.valid else snapshot.invalid_because or "it is gone",
        in_use=one.unit.use(),
    )


# -------------------------------------------------------------------- the document


def _responses(*groups: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": text, "content": content}
        for group in (_COMMON, *groups)
        for status, text in group.items()
    }


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        parts = document.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        schemas["Problem"] = models.Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        parts["securitySchemes"] = {_TOKEN: {"type": "http", "scheme": "bearer"}}
        document["security"] = [{_TOKEN: []}]
        for operations in document["paths"].values():
            for operation in operations.values():
                known = operation["responses"]
                # FastAPI would have it that its own kind of 422 is sent.
                for status, response in _responses().items():
                    known[str(status)] = response
        app.openapi_schema = document
    return app.openapi_schema
