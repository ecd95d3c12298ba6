"""Rules that hold for the whole run, whatever is being tested."""

import sys
from collections.abc import Generator

import pytest

from support.peers import in_ci

BARE_NAMES = {"scsi", "iscsi", "initiator", "datamover", "target", "backup", "cli"}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a package was imported by its bare name.

    From the checkout `import target` works and loads a second copy of each class, so that
    `isinstance` and `except` miss: no test need notice, hence this one.
    """
    leaked = sorted(BARE_NAMES & set(sys.modules))
    if leaked:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(
                f"\nimported by bare name instead of serverfree.NAME: {', '.join(leaked)}", red=True
            )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a peer that is skipped is a peer that is not tested: a failure."""
    report = yield
    judged_by_others = any(item.iter_markers("peer")) or any(item.iter_markers("vm"))
    if report.skipped and judged_by_others and in_ci():
        report.outcome = "failed"
    return report
