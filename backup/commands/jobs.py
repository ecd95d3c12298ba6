"""What the verbs that run a job share: how its report is shown."""

import argparse
from collections.abc import Sequence
from typing import Any, Protocol

from serverfree.initiator.commands.common import print_json


class Report(Protocol):
    """What a job came to, for programs and for people."""

    def facts(self) -> dict[str, Any]:
        """Return everything by name."""

    def lines(self) -> Sequence[tuple[str, str]]:
        """Return what a person wants to know, as names and values."""


def show_report(args: argparse.Namespace, report: Report) -> None:
    """Print a report, a fact a line, or with `--json` all of it as one object."""
    if args.json:
        print_json(report.facts())
        return
    rows = report.lines()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
