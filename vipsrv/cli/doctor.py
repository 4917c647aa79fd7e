"""``vipsrv doctor``: say what a server with the same settings would have here, and what is missing.

Exit codes: 0 nothing is missing, 1 the server cannot run, 2 the command line is invalid, 3 it runs with less
than it should have.
"""

import json
from dataclasses import asdict
from enum import IntEnum

import typer

from vipsrv.printable import printable
from vipsrv.server import Finding, Rating, ServerSettings, diagnose


class DoctorExit(IntEnum):
    """The exit codes of ``vipsrv doctor`` that do not come from the command line itself."""

    FINE = 0
    FAULTS = 1
    WARNINGS = 3


def run_doctor(settings: ServerSettings, *, as_json: bool) -> DoctorExit:
    """Print all findings and return the exit code."""
    findings = diagnose(settings)
    code = exit_code(findings)
    if as_json:
        typer.echo(json.dumps({"exit_code": code, "findings": [asdict(one) for one in findings]}, indent=2))
    else:
        for one in findings:
            typer.echo(printable(f"{one.rating.value:7}  {one.subject}: {one.detail}"))
            if one.advice:
                typer.echo(printable(f"{'':7}  → {one.advice}"))
    return code


def exit_code(findings: list[Finding]) -> DoctorExit:
    """Return the exit code for the most serious finding."""
    ratings = {one.rating for one in findings}
    if Rating.FAULT in ratings:
        return DoctorExit.FAULTS
    return DoctorExit.WARNINGS if Rating.WARNING in ratings else DoctorExit.FINE
