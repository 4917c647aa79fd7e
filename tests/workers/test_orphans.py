"""What a worker leaves behind, in a process of its own that adopts orphans as the gateway does."""

import os
import subprocess
import sys

import pytest

from vipsrv.workers import process_control

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to an ancestor")

# A parent that starts a child with or without no_new_privs, which starts another process and ends.
_LEAVE_BEHIND = """
import ctypes, os, subprocess, sys, time
from vipsrv.workers.orphans import Orphans
from vipsrv.workers.process_control import adopt_orphans
from vipsrv.workers.process_table import children_of
before = subprocess.Popen(["sleep", "600"])
assert Orphans.create() is None or os.getpid() == 1
adopt_orphans()
orphans = Orphans.create()
worker = subprocess.Popen([sys.executable, "-c", '''
import ctypes, subprocess, sys
if sys.argv[1] == "worker":
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
subprocess.Popen(["sleep", "600"])
''', sys.argv[1]])
own = {worker.pid}
orphans.end(own)
assert worker.wait() == 0
(left,) = children_of(os.getpid()) - {before.pid}
orphans.end(own=())
if sys.argv[1] == "worker":
    while left in children_of(os.getpid()):
        orphans.end(own=())
    print("killed")
else:
    orphans.end(own=())
    print("alive" if left in children_of(os.getpid()) else "gone")
    os.kill(left, 9)
    while left in children_of(os.getpid()):
        orphans.end(own=())
    print("reaped")
assert before.poll() is None
before.kill()
"""


def test_a_system_that_does_not_say_who_gets_orphans(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "prctl(37): Operation not permitted")

    monkeypatch.setattr(process_control, "prctl", refuse)
    for pid in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        assert process_control.adopts_orphans() is (pid == 1)


@pytest.mark.parametrize(("parent", "said"), [("worker", ["killed"]), ("someone else", ["alive", "reaped"])])
def test_an_orphan_of_a_worker_is_killed_and_any_other_is_only_reaped(parent: str, said: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LEAVE_BEHIND, parent],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout.splitlines(), ended.returncode) == (said, 0), ended.stderr
