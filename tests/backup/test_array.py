"""The client of the management API, against answers written by hand."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serverfree.backup.array import Array, ArrayError, Changes, SnapshotInUse, SnapshotTimeout

STORAGE = "iqn.2026-11.com.example:storage"


def disk_row(name: str = "data", target: str = STORAGE, lun: int = 0, designator: str = "3a"):
    return {
        "name": name, "kind": "disk", "target": target, "lun": lun,
        "url": f"iscsi://127.0.0.1:3260/{target}/{lun}", "designator": designator,
        "serial": designator.upper(), "size": 1048576, "block_size": 512, "readonly": False,
        "snapshots": True, "quiet": 12.5, "quiet_period": 3.0, "quiet_timeout": 80.0,
        "generation": None,
    }  # fmt: skip


SNAPSHOT = {
    "name": "monday", "kind": "snapshot", "target": STORAGE, "lun": 255,
    "url": f"iscsi://127.0.0.1:3260/{STORAGE}/255", "designator": "3b", "serial": "3B",
    "disk": "data", "created": "2026-11-22T23:25:31.230+00:00", "consistency": "fs",
    "generation": 7, "size": 1048576, "used": 0, "invalid": None, "in_use": None,
}  # fmt: skip


class Storage:
    """An HTTP server with answers by (method, path); what was asked is kept."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, object]]] = {}
        self.asked: list[tuple[str, str, object]] = []
        self.tokens: set[str | None] = set()
        storage = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                storage.tokens.add(self.headers.get("Authorization"))
                storage.asked.append((self.command, self.path, json.loads(body) if body else None))
                found = storage.answers.get((self.command, self.path), [(404, {"detail": "no"})])
                status, row = found.pop(0) if len(found) > 1 else found[0]
                content = row if isinstance(row, bytes) else json.dumps(row).encode()
                kind = "application/json" if status < 400 else "application/problem+json"
                if status == 204:
                    content = b""
                self.send_response(status)
                if not isinstance(row, bytes):
                    self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def say(self, method: str, path: str, status: int, row: object = None) -> None:
        self.answers.setdefault((method, path), []).append((status, row))


@pytest.fixture
def storage() -> Iterator[Storage]:
    storage = Storage()
    yield storage
    storage.server.shutdown()
    storage.server.server_close()


@pytest.fixture
def array(storage: Storage) -> Iterator[Array]:
    with Array(storage.url + "/", "sesame") as array:
        yield array


@pytest.mark.parametrize(
    "wanted",
    ["data", "3a", "3A", "naa.3a", "0x3A", f"iscsi://10.0.2.2:3333/{STORAGE}/0",
     f"iscsi://user@elsewhere/{STORAGE}/0?header_digest=crc32c"],
)  # fmt: skip
def test_a_disk_is_found_by_name_designator_serial_number_and_url(storage, array, wanted):
    rows = [disk_row(), disk_row("other", lun=1, designator="3c")]
    storage.say("GET", "/disks", 200, rows)
    assert array.find_disk(wanted).designator == "3a"
    assert storage.tokens == {"Bearer sesame"}


def test_a_disk_that_there_is_not_or_twice_is_one_line(storage, array):
    storage.say("GET", "/disks", 200, [disk_row(), disk_row(target="iqn.b:c", designator="3d")])
    with pytest.raises(ArrayError, match=r"several disks .* 3a .* 3d"):
        array.find_disk("data")
    with pytest.raises(ArrayError, match="there is no disk other"):
        array.find_disk("other")


def test_a_snapshot_is_asked_for_by_designator_and_told_of(storage, array):
    storage.say("GET", "/disks", 200, [disk_row()])
    storage.say("POST", "/disks/3a/snapshots", 201, SNAPSHOT)
    made = array.create("data", quiet=0, name="monday", consistency="fs")
    assert storage.asked[-1][2] == {"quiet": 0, "name": "monday", "consistency": "fs"}
    assert (made.name, made.lun, made.generation, made.invalid) == ("monday", 255, 7, None)


def test_a_timeout_of_the_gate_says_what_the_storage_knows(storage, array):
    storage.say("GET", "/disks", 200, [disk_row()])
    refusal = {
        "type": "urn:serverfree:problem:not-quiet", "title": "Conflict", "status": 409,
        "detail": "no 3 s without a write within 80 s: the last one was 0.2 s ago",
        "asked": 3.0, "timeout": 80.0, "waited": 80.01, "last_write_age": 0.2,
    }  # fmt: skip
    storage.say("POST", "/disks/3a/snapshots", 409, refusal)
    with pytest.raises(SnapshotTimeout, match="no 3 s without a write") as caught:
        array.create("data")
    error = caught.value
    assert (error.quiet, error.timeout, error.waited, error.last_write_age) == (3, 80, 80.01, 0.2)
    assert error.status == 409


def test_what_is_in_use_is_deleted_as_soon_as_it_is_not(storage, array):
    busy = {"type": "urn:serverfree:problem:in-use", "detail": "it was read 0.1 seconds ago"}
    place = "/snapshots/monday?force=false"
    storage.say("DELETE", place, 409, busy)
    storage.say("DELETE", place, 204)
    array.delete("monday")
    assert [asked[:2] for asked in storage.asked] == [("DELETE", place)] * 2


def test_what_stays_in_use_is_told_or_deleted_by_force(storage, array):
    busy = {"type": "urn:serverfree:problem:in-use", "detail": "it is reserved"}
    storage.say("DELETE", "/snapshots/a%2Fb?force=false", 409, busy)
    storage.say("DELETE", "/snapshots/a%2Fb?force=true", 204)
    with pytest.raises(SnapshotInUse, match="reserved"):
        array.delete("a/b", patience=0)
    array.delete("a/b", force=True)


def test_changes(storage, array):
    rows = {"extents": [[0, 65536], [131072, 65536]], "complete": True}
    storage.say("GET", "/snapshots/monday/changes?since=6", 200, rows)
    assert array.changes("monday", 6) == Changes(((0, 65536), (131072, 65536)), True)


def test_what_a_newer_storage_system_says_besides_is_let_be(storage, array):
    storage.say("GET", "/snapshots", 200, [{**SNAPSHOT, "colour": "blue"}])
    assert [one.name for one in array.snapshots()] == ["monday"]


@pytest.mark.parametrize(
    ("status", "row"),
    [
        (200, b"<html>a router</html>"),
        (200, [{"name": "monday"}]),
        (200, {"name": "monday"}),
        (200, None),
        (200, ["monday"]),
        (401, {"type": "urn:serverfree:problem:no-token", "detail": "send\nthe token"}),
        (500, b"\xff\xfe"),
        (502, b"bad gateway\nelsewhere"),
        (409, {"type": "urn:serverfree:problem:not-quiet", "detail": "without its facts"}),
    ],
)
def test_whatever_is_answered_is_one_line_at_worst(storage, array, status, row):
    storage.say("GET", "/snapshots", status, row)
    with pytest.raises(ArrayError) as caught:
        array.snapshots()
    assert "\n" not in str(caught.value)
    assert str(caught.value)


def test_a_storage_system_that_is_not_there_is_one_line(storage, array):
    storage.server.shutdown()
    storage.server.server_close()
    with pytest.raises(ArrayError, match=f"^{storage.url}: "):
        array.disks()


def test_without_a_token_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("SERVERFREE_TOKEN", raising=False)
    with pytest.raises(ArrayError, match="SERVERFREE_TOKEN is not set"):
        Array("http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["127.0.0.1:8260", "iscsi://127.0.0.1/x", "http://[", ""])
def test_what_is_no_address_is_one_line(url):
    with pytest.raises(ArrayError), Array(url, "sesame") as array:
        array.disks()


def test_progress_is_told_while_one_waits(storage, array, monkeypatch):
    monkeypatch.setattr("serverfree.backup.array._POLL", 0.01)
    storage.say("GET", "/disks", 200, [disk_row()])
    storage.say("GET", "/disks/3a/quiet", 200, {"disk": "data", "quiet": 1.5})
    told, seen = [], threading.Event()

    class Slow(list):
        def __getitem__(self, index):
            seen.wait(10)  # the answer comes when progress has been told
            return super().__getitem__(index)

    storage.answers["POST", "/disks/3a/snapshots"] = Slow([(201, SNAPSHOT)])

    def progress(quiet: float, waited: float) -> None:
        told.append((quiet, waited))
        seen.set()

    array.create("data", progress=progress)
    assert told[0][0] == 1.5
    assert told[0][1] >= 0
