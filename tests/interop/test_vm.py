"""Real Linux, real open-iscsi, real tools: each scenario of vm-testbed is a test."""

from collections.abc import Iterator

import pytest

from support import vm

from scenario import Scenario, load_all  # isort: skip
from testbed import Result, Runner, save  # isort: skip

SCENARIOS = load_all()
# A scenario's own limit acts in the guest; this one only has to lie above it, the boot, and the
# building of the image included.
pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    vm.require()
    with Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def results() -> Iterator[list[Result]]:
    """What was judged in this run. A run of all of them is kept for the README's table."""
    results: list[Result] = []
    yield results
    if len(results) == sum(not scenario.long for scenario in SCENARIOS):
        save(results)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(scenario, id=scenario.name, marks=[pytest.mark.long] if scenario.long else [])
        for scenario in SCENARIOS
    ],
)
def test_scenario(scenario: Scenario, runner: Runner, results: list[Result]) -> None:
    result = runner.run(scenario)
    results.append(result)
    assert result.passed, f"{result.verdict}\n" + "\n".join(result.output)
