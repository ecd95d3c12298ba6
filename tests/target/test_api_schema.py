"""The management API against its own OpenAPI document: schemathesis makes the requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from serverfree.target.api.server import ApiServer
from serverfree.target.config import parse_api
from serverfree.target.config_file import load
from serverfree.target.service import Service

TOKEN = "open-sesame"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
EXAMPLES = 20
CONFIGURATION = """
[server]
portals = ["127.0.0.1:0"]
[[target]]
iqn = "iqn.2026-11.com.example:storage"
[[target.disk]]
name = "data"
path = "data.img"
size = "1MiB"
quiet = 0
"""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    folder: Path = tmp_path_factory.mktemp("schema")
    (folder / "served.toml").write_text(CONFIGURATION)
    service = Service(load(folder / "served.toml"))
    service.start()
    service.snapshots.create("data", name="monday")
    server = ApiServer(service, parse_api("127.0.0.1:0"), TOKEN)
    server.start()
    yield schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=BEARER)
    service.snapshots.close()
    server.stop()
    service.stop()


def aim(case: schemathesis.Case) -> None:
    """Name things that there are, and wait for nothing: what is made up is hardly ever found."""
    known = {"disk": "data", "snapshot": "monday"}
    case.path_parameters.update({key: known[key] for key in case.path_parameters})
    if isinstance(case.body, dict):
        case.body["timeout"] = 0


@pytest.mark.served
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_document_tells_of(document, mode) -> None:
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) >= 9
    for operation in operations:
        try:
            requests = operation.as_strategy(generation_mode=mode)

            @given(case=requests)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            def ask(case: schemathesis.Case) -> None:
                if mode is GenerationMode.POSITIVE:
                    aim(case)
                case.call_and_validate(headers=BEARER)

            ask()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # it takes nothing that could be wrong
