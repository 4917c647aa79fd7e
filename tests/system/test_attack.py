"""Each thing that code in a worker's place could try fails, and succeeds in a process that is not confined.

The attempts are in ``tests/support/attack.py``; the check of the container image makes them, too.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support import attack
from vipsrv.workers.child.sandbox import layers_not_in_kernel

pytestmark = pytest.mark.skipif(
    bool(layers_not_in_kernel()), reason=f"this kernel has no {', '.join(layers_not_in_kernel())}"
)

NOBODY = 65534
_USERS = [0, NOBODY] if os.geteuid() == 0 else [0]
"""0 is the user who runs the tests; root tries as an unprivileged user, too."""

_FAILED = re.compile(r"(PermissionError|OSError): \[Errno \d+\]|killed by SIGSYS$")
_FAULTS = {"grow_the_stack"}
"""Attempts that fail by a page fault."""


@cache
def outcomes(*arguments: str) -> dict[str, str]:
    ended = subprocess.run(
        [sys.executable, attack.__file__, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(attack.__file__).parents[2])},
    )
    assert ended.stdout, ended.stderr
    found: dict[str, str] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("thread", ["main", "older"])
@pytest.mark.parametrize("uid", _USERS)
@pytest.mark.parametrize("name", attack.attempts())
def test_a_confined_process_fails(name: str, uid: int, thread: str) -> None:
    found = outcomes("--uid", str(uid), *(["--older-thread"] if thread == "older" else []))
    assert _FAILED.match(found[name]) or (name in _FAULTS and found[name] == "killed by SIGSEGV"), found[name]


@pytest.mark.parametrize("name", [name for name in attack.attempts() if name not in attack.NOT_EVERYWHERE])
def test_a_process_that_is_not_confined_succeeds(name: str) -> None:
    assert outcomes("--unconfined")[name] == attack.REACHED
