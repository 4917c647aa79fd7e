"""The layers one by one, what happens if one does not hold, and what a real worker reports."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers.child.child_process import ChildProcess
from vipsrv.workers.channel import MAX_THREADS, Ready
from vipsrv.workers.child.sandbox import Confinement, default_mode, layers_not_in_kernel
from vipsrv.workers.child.sandbox.seccomp import program
from vipsrv.workers.child.sandbox.system_calls import (
    _ARCHITECTURES,
    ALLOWED,
    ANSWERED,
    CONDITIONS,
    DEADLY,
    architecture,
)

all_layers = pytest.mark.skipif(
    bool(layers_not_in_kernel()), reason=f"this kernel has no {', '.join(layers_not_in_kernel())}"
)

_CONFINE = """
import os
from vipsrv.workers import process_control
from vipsrv.workers.child import sandbox
from vipsrv.workers.child.sandbox import descriptors, landlock, privileges, seccomp
descriptors.keep_only = lambda channel, null: None  # this process answers through its standard streams
descriptors.close_standard_error = lambda: None
def confine(mode):
    one = sandbox.Confinement(mode, parent=os.getppid(), job_memory=1 << 26, max_upload=1, worker_uid=0)
    one.begin()
    print(*one.complete(-1), flush=True)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _CONFINE + code], capture_output=True, text=True, timeout=30, check=False
    )


def layers_of(worker: Ready) -> list[str]:
    return [layer.rstrip("0123456789") for layer in worker.layers]


EXPECTED = [
    "no-new-privs",
    *(["own-uid"] if os.geteuid() == 0 else []),
    *["rlimits", "not-dumpable", "landlock-", "seccomp"],
]


@all_layers
def test_a_worker_names_the_layers_that_hold() -> None:
    worker = ChildProcess({"sandbox": "require"})
    try:
        assert layers_of(worker.start()) == EXPECTED
        assert worker.status("Seccomp") == 2
        assert worker.status("NoNewPrivs") == 1
        assert worker.status("CapEff") == 0
        limits = Path(f"/proc/{worker.process.pid}/limits").read_text().splitlines()
        assert next(line.split()[3:5] for line in limits if line.startswith("Max open files")) == ["24", "24"]
        worker.check_that_it_works()
    finally:
        worker.close()


def test_a_worker_without_a_sandbox_names_no_layers() -> None:
    worker = ChildProcess({"sandbox": "off"})
    try:
        assert worker.start().layers == ()
        worker.check_that_it_works()
    finally:
        worker.close()


@all_layers
def test_every_layer_is_required_where_the_kernel_has_them() -> None:
    assert default_mode() == "require"


@all_layers
@pytest.mark.parametrize(
    ("hole", "fault", "left"),
    [
        (
            "landlock.restrict = lambda **_: None",
            "in spite of the layer landlock-",
            ["rlimits", "not-dumpable", "seccomp"],
        ),
        (
            "seccomp.restrict = lambda: None; landlock.version = lambda: 0",
            "this kernel has no Landlock",
            ["rlimits", "not-dumpable"],
        ),
        (
            "seccomp.available = lambda: False",
            "there is no filter of system calls (seccomp)",
            ["rlimits", "not-dumpable", "landlock-"],
        ),
        (
            "def fail(): raise OSError(1, 'not today')\nprocess_control.forbid_inspection = fail",
            "the layer not-dumpable cannot be set up: [Errno 1] not today",
            ["rlimits", "landlock-", "seccomp"],
        ),
    ],
)
def test_a_layer_that_does_not_hold(hole: str, fault: str, left: list[str]) -> None:
    required = run(f"{hole}\nconfine('require')")
    assert required.returncode == 1
    last = required.stderr.splitlines()[-1]
    assert f"SandboxError: a worker cannot be confined: {fault}" in last
    assert last.endswith("'--sandbox best-effort' goes on without it")
    best_effort = run(f"{hole}\nconfine('best-effort')")
    assert best_effort.returncode == 0, best_effort.stderr
    layers = [layer.rstrip("0123456789") for layer in best_effort.stdout.split()]
    assert [layer for layer in layers if layer not in {"no-new-privs", "own-uid"}] == left


@all_layers
def test_a_filter_that_lets_calls_through_is_found_out() -> None:
    ended = run(
        "import vipsrv.workers.child.sandbox.seccomp as s\n"
        "s.ALLOWED = [*s.ALLOWED, 'socket']\n"
        "from vipsrv.workers.child.sandbox.system_calls import architecture\n"
        "architecture().numbers['socket'] = 41 if os.uname().machine == 'x86_64' else 198\n"
        "confine('require')"
    )
    assert "in spite of the layer seccomp it could still make a socket" in ended.stderr


@all_layers
def test_a_number_that_this_user_namespace_does_not_have_is_no_user() -> None:
    ended = run(
        "import errno\n"
        "def refuse(*_): raise OSError(errno.EINVAL, 'Invalid argument')\n"
        "os.geteuid = lambda: 0\n"
        "os.setgroups = lambda _: None\n"
        "os.setresgid = refuse\n"
        "confine('require')"
    )
    last = ended.stderr.splitlines()[-1]
    assert "the layer own-uid cannot be set up: [Errno 22] Invalid argument" in last
    assert "with --worker-uid, or start the server as an unprivileged user" in last
    assert "best-effort" not in last


@all_layers
def test_threads_that_are_older_than_landlock_are_a_missing_layer() -> None:
    ended = run(
        "restrict = landlock.restrict\n"
        "def at_the_end(*, may_read=False):\n"
        "    if may_read:\n"
        "        raise OSError(24, 'Too many open files')\n"
        "    restrict()\n"
        "landlock.restrict = at_the_end\n"
        "confine('best-effort')"
    )
    assert ended.returncode == 0, ended.stderr
    assert "seccomp" in ended.stdout
    assert "landlock" not in ended.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux'")
@pytest.mark.parametrize("soft", [8 << 20, 64 << 20, -1])
def test_memory_is_limited_for_the_stacks_that_threads_have(soft: int) -> None:
    gib = 1 << 30
    ended = run(
        "import resource as r\n"
        "_, hard = r.getrlimit(r.RLIMIT_STACK)\n"
        f"r.setrlimit(r.RLIMIT_STACK, ({soft}, hard))\n"
        "from vipsrv.workers.child.sandbox import resources\n"
        f"resources.limit({gib}, {100 * gib}, own_user=False)\n"
        "print(*[r.getrlimit(kind)[0] for kind in (r.RLIMIT_STACK, r.RLIMIT_DATA, r.RLIMIT_AS)])"
    )
    stack, data, address_space = map(int, ended.stdout.split())
    assert stack == (8 << 20 if soft == -1 else soft)
    assert data == gib + (384 << 20) + min(MAX_THREADS, os.cpu_count() or 1) * stack
    assert address_space == 400 * gib


@pytest.mark.parametrize(("largest", "has_list"), [(2**31 - 1, False), (2**63 - 1, True)])
def test_a_32_bit_process_has_no_filter(
    largest: int, *, has_list: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "maxsize", largest)
    assert (architecture() is not None) is has_list


@pytest.mark.parametrize("system", ["darwin", "freebsd14"])
def test_elsewhere_nothing_is_confined(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert layers_not_in_kernel() == ("landlock", "seccomp")
    assert default_mode() == "best-effort"
    required = Confinement("require", parent=1, job_memory=1, max_upload=1, worker_uid=0)
    with pytest.raises(Exception, match=f"workers are not confined on {system}"):
        required.begin()


@pytest.mark.parametrize("machine", sorted(_ARCHITECTURES))
def test_each_call_has_a_number_or_does_not_exist(machine: str) -> None:
    calls = _ARCHITECTURES[machine]
    named = {*ALLOWED, *CONDITIONS, *ANSWERED, *DEADLY}
    missing: dict[str, set[str]] = {"x86_64": set(), "aarch64": {"poll", "dup2"}}
    assert named - set(calls.numbers) == missing[machine]
    assert set(calls.numbers) <= named
    assert set(CONDITIONS) <= set(ALLOWED)
    assert len(program(calls, 1)) // 8 < 4096  # BPF_MAXINSNS


@pytest.mark.parametrize("first", [ALLOWED, tuple(ANSWERED)])
def test_a_deadly_call_is_in_no_other_list(first: tuple[str, ...]) -> None:
    assert not set(first) & set(DEADLY)
