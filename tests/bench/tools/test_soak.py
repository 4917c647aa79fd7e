"""How the soak test judges results, and the memory budget."""

import io
import subprocess
import sys

import pytest
from PIL import Image

from bench.measuring.processes import anonymous_bytes
from bench.tools.budget import MIB, memory_budget, memory_of
from bench.tools.soak import Outcome, RequestKind, judge, print_outcomes
from vipsrv.server.settings import ServerSettings

KIND = RequestKind("small", "small.jpg", 40, 30)


def encoded(kind: str, size: tuple[int, int]) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", size, (90, 120, 40)).save(file, kind)
        return file.getvalue()


def settings(workers: int, job_memory: int, decode_memory: int) -> ServerSettings:
    return ServerSettings(
        workers=workers, job_memory=job_memory * MIB, decode_memory=decode_memory * MIB, spool_memory=64 * MIB
    )


@pytest.mark.parametrize(
    ("workers", "job_memory", "decode_memory", "heavy"),
    [
        (2, 640, 768, 640),  # a lane of one worker, which no second job shares
        (4, 640, 768, 768),  # of two, whose jobs share the memory
        (8, 100, 768, 400),  # of four, which cannot use all of it
        (4, 900, 768, 900),  # one that needs more than all of it runs alone
    ],
)
def test_the_heavy_lane_is_in_the_budget(
    workers: int, job_memory: int, decode_memory: int, heavy: int
) -> None:
    least = memory_budget(settings(workers, 1, 1), 64)
    whole = memory_budget(settings(workers, job_memory, decode_memory), 64)
    assert (whole - least) // MIB == heavy - 1


def test_memory_is_read_for_running_processes_and_zero_for_others() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it runs now, and waits
        (alive,) = memory_of([process.pid])
        assert alive > MIB / 4
        assert alive == anonymous_bytes(process.pid)
        process.kill()
        process.wait()
        assert memory_of([process.pid]) == [0]


def test_a_result_is_judged_by_format_size_and_pixels() -> None:
    right = encoded("JPEG", (40, 30))
    assert judge(right, KIND) == "right"
    assert judge(encoded("JPEG", (41, 30)), KIND).startswith("wrong: JPEG of (41, 30)")
    assert judge(encoded("PNG", (40, 30)), KIND).startswith("wrong: PNG")
    assert judge(encoded("PNG", (40, 30))[:-30], RequestKind("", "", 40, 30, {"format": "png"})).startswith(
        "wrong"
    )
    assert judge(b"nothing", KIND).startswith("wrong")


def test_wrong_and_missing_outcomes_are_faults() -> None:
    outcomes = [
        Outcome("tiny JPEG", 0.1, "right", 0),
        Outcome("tiny JPEG", 0.1, "lost: gone", 0),
        Outcome("tiny JPEG", 0.1, "lost: gone", 0),
    ]
    faults = print_outcomes(outcomes)
    assert "tiny JPEG: 2 times lost: gone" in faults
    assert "JPEG 1.9 MP: none was answered" in faults
    assert "tiny JPEG: none was answered" not in faults
