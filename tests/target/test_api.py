"""The management API: its answers, its problem documents; nothing passes without the token."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from serverfree.initiator.disk import Disk
from serverfree.initiator.session import Session
from serverfree.target.api.guard import LARGEST_BODY, Guard
from serverfree.target.api.server import ApiServer, token_from_environment
from serverfree.target.config import ConfigError, check_api, parse_api
from serverfree.target.config_file import load
from serverfree.target.service import Service

STORAGE = "iqn.2026-11.com.example:storage"
ME = "iqn.2026-11.com.example:me"
TOKEN = "open-sesame"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CONFIGURATION = f"""
[server]
portals = ["127.0.0.1:0"]
[[target]]
iqn = "{STORAGE}"
[[target.disk]]
name = "data"
path = "data.img"
size = "1MiB"
quiet = 0
[[target.disk]]
name = "noisy"
path = "noisy.img"
size = "1MiB"
quiet = 60
quiet-timeout = 0.1
[[target.disk]]
name = "fixed"
path = "fixed.img"
readonly = true
"""


def make_service(folder: Path) -> Service:
    (folder / "fixed.img").write_bytes(bytes(1 << 20))
    path = folder / "served.toml"
    path.write_text(CONFIGURATION)
    service = Service(load(path))
    service.start()
    return service


@contextmanager
def answering(service: Service) -> Iterator[ApiServer]:
    server = ApiServer(service, parse_api("127.0.0.1:0"), TOKEN)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server_and_service(tmp_path_factory) -> Iterator[tuple[ApiServer, Service]]:
    service = make_service(tmp_path_factory.mktemp("served"))
    with answering(service) as server:
        yield server, service
    service.stop()


@pytest.fixture
def server(server_and_service) -> ApiServer:
    return server_and_service[0]


@pytest.fixture
def service(server_and_service) -> Iterator[Service]:
    service = server_and_service[1]
    yield service
    for each in service.snapshots.all():
        service.snapshots.delete(each.unit.serial, force=True)


@pytest.fixture
def api(server: ApiServer, service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=30, verify=False) as client:
        yield client


def write(service: Service, lun: int) -> None:
    portal = service.url(service.targets[0], 0).split("/")[2]
    with Session("127.0.0.1", int(portal.split(":")[1]), STORAGE, ME) as session:
        Disk(session.unit(lun)).write(0, bytes(512))


def problem(answer, status: int, kind: str) -> dict:
    """Return the problem document (RFC 9457) that the answer has to be."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["type"] == f"urn:serverfree:problem:{kind}"
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    return found


def test_disks_are_told_with_what_snapshots_wait_for(api, service):
    data, noisy, fixed = api.get("/disks").json()
    unit = service.targets[0].units[0]
    assert (data["name"], data["target"], data["lun"]) == ("data", STORAGE, 0)
    assert data["url"] == service.url(service.targets[0], 0)
    assert data["designator"] == unit.designator.identifier.hex()
    assert data["serial"] == unit.serial
    assert (data["size"], data["block_size"], data["snapshots"]) == (1 << 20, 512, True)
    assert (data["quiet_period"], data["quiet_timeout"]) == (0, 80)
    assert (noisy["quiet_period"], noisy["quiet_timeout"]) == (60, 0.1)
    assert (fixed["readonly"], fixed["snapshots"], fixed["quiet"]) == (True, False, None)


def test_a_snapshot_is_created_told_of_and_deleted(api):
    answer = api.post("/disks/data/snapshots", json={"name": "monday", "consistency": "fs"})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["name"], made["disk"], made["lun"]) == ("monday", "data", 255)
    assert made["url"].endswith(f"{STORAGE}/255")
    assert (made["consistency"], made["size"], made["invalid"]) == ("fs", 1 << 20, None)
    assert made["created"].endswith("+00:00")
    assert api.get("/snapshots").json() == [made]
    assert api.get("/snapshots/monday").json() == made
    assert api.get(f"/snapshots/{made['designator']}").json() == made
    assert [unit["kind"] for unit in api.get("/units").json()] == ["disk"] * 3 + ["snapshot"]
    assert api.get("/disks").json()[0]["generation"] == made["generation"]
    gone = api.delete("/snapshots/monday")
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.get("/snapshots").json() == []
    problem(api.get("/snapshots/monday"), 404, "not-found")


def test_the_gate_that_did_not_open_says_what_was_asked_and_when_the_last_write_was(api, service):
    write(service, 1)
    told = problem(api.post("/disks/noisy/snapshots", json={}), 409, "not-quiet")
    assert (told["asked"], told["timeout"]) == (60, 0.1)
    assert 0.1 <= told["waited"] < 10
    assert 0.1 <= told["last_write_age"] < 10
    assert api.get("/snapshots").json() == []
    assert api.post("/disks/noisy/snapshots", json={"quiet": 0}).status_code == 201


def test_quiet_time_is_that_since_the_last_write(api, service):
    write(service, 1)
    first = api.get("/disks/noisy/quiet").json()
    assert first["disk"] == "noisy"
    assert 0 <= first["quiet"] < 5
    time.sleep(0.05)
    second = api.get("/disks/noisy/quiet").json()
    assert second["quiet"] >= first["quiet"] + 0.05


def test_changes_since_a_generation(api, service):
    since = api.post("/disks/data/snapshots", json={"name": "a"}).json()["generation"]
    write(service, 0)
    api.delete("/snapshots/a")
    api.post("/disks/data/snapshots", json={"name": "b"})
    told = api.get("/snapshots/b/changes", params={"since": since})
    assert told.json() == {"extents": [[0, 65536]], "complete": True}
    told = api.get("/snapshots/b/changes", params={"since": 0})
    assert told.json() == {"extents": [[0, 1 << 20]], "complete": False}


def test_sessions_are_told(api, service):
    portal = service.url(service.targets[0], 0).split("/")[2]
    with Session("127.0.0.1", int(portal.split(":")[1]), STORAGE, ME):
        (told,) = api.get("/sessions").json()
    assert (told["target"], told["initiator"], told["luns"]) == (STORAGE, ME, [0, 1, 2])


def test_health(api):
    told = api.get("/health").json()
    assert (told["status"], told["disks"], told["snapshots"]) == ("ok", 3, 0)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/nowhere", None, 404, "not-found"),
        ("GET", "/disks/other/quiet", None, 404, "not-found"),
        ("GET", "/disks/fixed/quiet", None, 404, "not-found"),
        ("POST", "/disks/fixed/snapshots", {}, 404, "not-found"),
        ("DELETE", "/snapshots/other", None, 404, "not-found"),
        ("GET", "/snapshots/other/changes?since=1", None, 404, "not-found"),
        ("PUT", "/disks", {}, 405, "method-not-allowed"),
        ("POST", "/snapshots", {}, 405, "method-not-allowed"),
        ("POST", "/disks/data/snapshots", {"name": "data"}, 409, "conflict"),
        ("POST", "/disks/data/snapshots", {"name": "../etc"}, 422, "invalid"),
        ("POST", "/disks/data/snapshots", {"name": "x" * 65}, 422, "invalid"),
        ("POST", "/disks/data/snapshots", {"quiet": -1}, 422, "invalid"),
        ("POST", "/disks/data/snapshots", {"quiet": 1e9}, 422, "invalid"),
        ("POST", "/disks/data/snapshots", {"timeout": "soon"}, 422, "invalid"),
        ("POST", "/disks/data/snapshots", {"consistency": "good"}, 422, "invalid"),
        ("POST", "/disks/data/snapshots", {"force": True}, 422, "invalid"),
        ("POST", "/disks/data/snapshots", [], 422, "invalid"),
        ("GET", "/snapshots/x/changes", None, 422, "invalid"),
        ("GET", "/snapshots/x/changes?since=-1", None, 422, "invalid"),
        ("GET", "/snapshots/x/changes?since=99999999999999999999999", None, 422, "invalid"),
        ("DELETE", "/snapshots/x?force=perhaps", None, 422, "invalid"),
    ],
)
def test_what_cannot_be_is_a_problem_document(api, method, path, body, status, kind):
    problem(api.request(method, path, json=body), status, kind)


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"quiet": NaN}', b'{"quiet": Infinity}'])
def test_what_is_no_json_is_a_problem_document(api, body):
    answer = api.post(
        "/disks/data/snapshots", content=body, headers={"Content-Type": "application/json"}
    )
    problem(answer, 422, "invalid")


def test_what_fails_within_is_a_problem_document_without_its_insides(api, service, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(service.snapshots, "all", fails)
    assert "secret" not in problem(api.get("/snapshots"), 500, "internal")["detail"]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer open"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        [("Authorization", "Bearer no"), ("Authorization", f"Bearer {TOKEN}")],
    ],
)
def test_no_request_without_the_token_does_anything(service, server, api, header):
    document = api.get("/openapi.json").json()
    service.snapshots.create("data", name="x")
    before = [(one.snapshot.name, one.lun) for one in service.snapshots.all()]
    places = [
        (method, path.format(disk="data", snapshot="x"))
        for path, operations in document["paths"].items()
        for method in operations
    ]
    assert len(places) >= 9
    places += [("get", path) for path in ("/openapi.json", "/docs", "/redoc", "/", "/nowhere")]
    with httpx.Client(base_url=server.url, verify=False) as stranger:
        for method, path in places:
            body = {} if method == "post" else None
            answer = stranger.request(method, path, json=body, params={"since": 0}, headers=header)
            problem(answer, 401, "no-token")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert [(one.snapshot.name, one.lun) for one in service.snapshots.all()] == before


def test_with_the_token_the_same_requests_do(api, service):
    # The test above means something only if these do what they say.
    assert api.post("/disks/data/snapshots", json={"name": "x"}).status_code == 201
    assert api.delete("/snapshots/x", params={"since": 0}).status_code == 204


def test_a_body_that_is_too_large_is_not_kept(api):
    huge = b'{"name": "' + b"x" * LARGEST_BODY + b'"}'
    problem(api.post("/disks/data/snapshots", content=huge), 413, "too-large")

    def dribble() -> Iterator[bytes]:
        for _ in range(LARGEST_BODY // 1024 + 1):
            yield b" " * 1024

    problem(api.post("/disks/data/snapshots", content=dribble()), 413, "too-large")


def test_too_many_requests_at_once_are_told_so():
    async def trial() -> list[int]:
        release = asyncio.Event()

        async def slow(scope, receive, send) -> None:
            await release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        guard = Guard(slow, TOKEN)
        statuses: list[int] = []
        scope = {"type": "http", "headers": [(b"authorization", f"Bearer {TOKEN}".encode())]}

        async def ask() -> None:
            async def receive():
                return {"type": "http.request", "body": b""}

            async def send(message) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            await guard(scope, receive, send)

        tasks = [asyncio.create_task(ask()) for _ in range(70)]
        await asyncio.sleep(0.05)
        refused = list(statuses)
        release.set()
        await asyncio.gather(*tasks)
        return refused

    assert asyncio.run(trial()) == [503] * 6


def test_who_hangs_up_waits_no_longer(service, api):
    write(service, 1)
    with pytest.raises(httpx.ReadTimeout):
        api.post("/disks/noisy/snapshots", json={"quiet": 50, "timeout": 50}, timeout=0.3)
    deadline = time.monotonic() + 10
    while service.snapshots.luns(service.targets[0]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert service.snapshots.luns(service.targets[0]) == {}  # nothing is promised to anybody
    assert api.get("/health").json()["snapshots"] == 0


def test_who_waits_when_the_server_stops_is_told_so(tmp_path):
    service = make_service(tmp_path)
    write(service, 1)
    answers: list[httpx.Response] = []

    def ask(url: str) -> None:
        wish = {"quiet": 50, "timeout": 50}
        place = f"{url}/disks/noisy/snapshots"
        answers.append(httpx.post(place, json=wish, headers=BEARER, timeout=30))

    with answering(service) as server:
        asking = threading.Thread(target=ask, args=(server.url,))
        asking.start()
        while not service.snapshots.luns(service.targets[0]):
            time.sleep(0.005)
        began = time.monotonic()
        service.snapshots.close()
    asking.join(10)
    problem(answers[0], 503, "cancelled")
    assert time.monotonic() - began < 5
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health", headers=BEARER)
    service.stop()


def test_the_document_says_what_is_answered(api):
    document = api.get("/openapi.json").json()
    assert document["security"] == [{"bearer": []}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"401", "422", "503"} <= set(operation["responses"]), (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]


def test_without_a_token_nothing_starts(monkeypatch):
    monkeypatch.delenv("SERVERFREE_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="set SERVERFREE_TOKEN"):
        token_from_environment()
    for bad in ("", " spaced ", "new\nline", "ünicode"):
        monkeypatch.setenv("SERVERFREE_TOKEN", bad)
        with pytest.raises(ConfigError):
            token_from_environment()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_the_loopback_needs_no_word(host):
    check_api(parse_api(f"{host}:0"), public=False, where="--api")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "[::]", "storage.example.com"])
def test_an_address_that_others_reach_has_to_be_wanted(host):
    with pytest.raises(ConfigError, match="not encrypted"):
        check_api(parse_api(f"{host}:0"), public=False, where="--api")
    check_api(parse_api(f"{host}:0"), public=True, where="--api")


def test_the_address_cannot_change_while_it_is_served(service, tmp_path):
    path = tmp_path / "served.toml"
    path.write_text(CONFIGURATION.replace("[server]", '[server]\napi = "127.0.0.1:0"'))
    with pytest.raises(ConfigError, match="cannot change"):
        service.reload(load(path))


def test_a_target_without_the_api_does_not_load_it():
    modules = (
        "[name for name in sys.modules if name in ('fastapi', 'uvicorn', 'pydantic', 'httpx')]"
    )
    code = f"import sys, serverfree.target.commands.target as t; print({modules})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_portal_that_listens_everywhere_is_named_by_the_address_that_was_reached(tmp_path):
    (tmp_path / "fixed.img").write_bytes(bytes(1 << 20))
    path = tmp_path / "served.toml"
    path.write_text(CONFIGURATION.replace("127.0.0.1:0", "0.0.0.0:0"))
    service = Service(load(path))
    port = service.start()[0].port
    with answering(service) as server:
        (disk, *_) = httpx.get(f"{server.url}/disks", headers=BEARER).json()
        assert disk["url"] == f"iscsi://127.0.0.1:{port}/{STORAGE}/0"
        made = httpx.post(f"{server.url}/disks/data/snapshots", headers=BEARER, json={}).json()
        assert made["url"] == f"iscsi://127.0.0.1:{port}/{STORAGE}/255"
    service.stop()


@pytest.mark.parametrize("said", [b"", b"GET /health HTTP/1.1\r\nHost: a\r\n"])
def test_the_head_of_a_request_comes_in_time_or_not_at_all(server, api, said, monkeypatch):
    monkeypatch.setattr("serverfree.target.api.http.HEAD_TIME", 0.3)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        began = time.monotonic()
        slow.sendall(said)
        with suppress(ConnectionError):
            while time.monotonic() - began < 5 and not _closed(slow):
                slow.sendall(b"A: b\r\n" if said else b"")
    assert 0.2 < time.monotonic() - began < 5
    assert api.get("/health").status_code == 200


def _closed(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def test_a_connection_that_is_used_again_has_its_time_again(server, service, monkeypatch):
    monkeypatch.setattr("serverfree.target.api.http.HEAD_TIME", 0.5)
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=30, verify=False) as client:
        for _ in range(4):
            assert client.get("/health").status_code == 200
            time.sleep(0.2)
        wish = {"quiet": 1.0, "timeout": 5.0}
        assert client.post("/disks/data/snapshots", json=wish).status_code == 201
