"""The page about metrics names what the code has."""

import re
from pathlib import Path

from vipsrv.errors import Limit
from vipsrv.server.metrics.catalogue import METRICS, exposed_names
from vipsrv.workers.process import EndCause

PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "monitoring.md").read_text()


def first_column(heading: str) -> set[str]:
    """The words in code in the first column of the table under a heading."""
    section = PAGE.partition(f"### {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


def test_every_limit_is_explained() -> None:
    assert first_column("Limits") == {limit.value for limit in Limit}


def test_every_reason_for_the_end_of_a_worker_is_explained() -> None:
    assert first_column("Workers") == {cause.value for cause in EndCause} - {EndCause.STOPPING.value}


def test_the_metrics_in_the_text_exist() -> None:
    named = set(re.findall(r"\bvipsrv_[a-z_]+", PAGE))
    assert named
    assert named <= exposed_names() | set(METRICS)
