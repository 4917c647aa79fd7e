"""What a process gives up, checked in a process that has given it up."""

import os
import subprocess
import sys

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are Linux'")


def run(code: str, *, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        pass_fds=pass_fds,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_stop_signals_are_ignored() -> None:
    ended = run(
        "import os, signal\n"
        "from vipsrv.workers.child import sandbox\n"
        "sandbox.ignore_stop_signals()\n"
        "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('alive')"
    )
    assert (ended.stdout, ended.returncode) == ("alive\n", 0)


@linux_only
def test_no_privileges_can_be_gained() -> None:
    ended = run(
        "from vipsrv.workers.child.sandbox import privileges\n"
        "def flag():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(line.split()[1] for line in lines if line.startswith('NoNewPrivs'))\n"
        "before = flag(); privileges.gain_no_privileges(); print(before, flag())"
    )
    assert ended.stdout.split()[-1] == "1", ended.stderr


@linux_only
def test_only_the_channel_stays_open() -> None:
    channel, other = os.pipe()
    try:
        ended = run(
            "import os, sys\n"
            "from vipsrv.workers.child.sandbox import descriptors\n"
            "out = os.dup(1)\n"
            f"os.dup2({other}, {other} + 500)\n"
            "descriptors.keep_only(out, descriptors.open_null())\n"
            "descriptors.close_standard_error()\n"
            "folder = '/proc/self/fd'\n"
            "numbers = sorted(int(name) for name in os.listdir(folder))\n"
            "links = []\n"
            "for number in numbers:\n"
            "    if os.path.lexists(f'{folder}/{number}'):\n"  # the listing's own is gone by now
            "        links.append(f'{number} ' + os.readlink(f'{folder}/{number}'))\n"
            "os.write(out, '\\n'.join(links).encode())",
            pass_fds=(channel, other),
        )
    finally:
        os.close(channel)
        os.close(other)
    lines = ended.stdout.splitlines()
    assert lines[:3] == ["0 /dev/null", "1 /dev/null", "2 /dev/null"], ended.stderr
    assert len(lines) == 4
    assert "pipe:" in lines[3]


@linux_only
def test_only_open_descriptors_are_closed_however_high_the_limit_is() -> None:
    ended = run(
        "import os, resource\n"
        "from vipsrv.workers.child.sandbox import descriptors\n"
        "closed = []\n"
        "os.closerange = lambda first, end: closed.extend(range(first, end))\n"
        "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
        "channel = os.dup(1)\n"
        "standard_output = os.dup(1)\n"
        "descriptors.keep_only(channel, descriptors.open_null())\n"
        "os.write(standard_output, b'closed' if standard_output in closed and len(closed) < 50 else b'no')"
    )
    assert ended.stdout == "closed", ended.stderr


def test_a_standard_stream_cannot_be_the_channel() -> None:
    ended = run("from vipsrv.workers.child.sandbox import descriptors; descriptors.keep_only(2, 0)")
    assert "ValueError: the channel is descriptor 2, one of the standard streams" in ended.stderr


def test_a_parent_that_has_ended_is_an_error() -> None:
    ended = run("from vipsrv.workers.child import sandbox; sandbox.die_with_parent(1 << 22)")
    assert "ProcessLookupError: the parent process 4194304 has ended" in ended.stderr


def test_a_parent_that_runs_is_accepted() -> None:
    ended = run(
        "import os; from vipsrv.workers.child import sandbox\n"
        "sandbox.die_with_parent(os.getppid()); print('fine')"
    )
    assert ended.stdout == "fine\n"
