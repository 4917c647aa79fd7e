"""Whether the results of ``bench.tools.batch_compare`` are what was asked for, and how they look."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from bench.baselines.batch.interface import Task
from bench.baselines.result_check import checker
from bench.image_quality import Pixels, decode, reference, ssim


@dataclass(frozen=True, slots=True)
class Seen:
    """How results look beside a full decode with Lanczos: mean and least SSIM, and the bytes of all."""

    mean_ssim: float
    least_ssim: float
    bytes: int


def size_of(source: Path, width: int) -> tuple[int, int]:
    """The size of the result of a file."""
    with Image.open(source) as image:
        return width, max(1, round(image.height * width / image.width))


def check(results: Sequence[Path], task: Task) -> tuple[int, str | None]:
    """Check all results by their headers: return how many are wrong, and how the first one is."""
    if len(results) != len(task.files):
        missing = abs(len(task.files) - len(results))
        return missing, f"{len(results)} results of {len(task.files)} files"
    wrong = 0
    problem: str | None = None
    for source, result in zip(task.files, results, strict=True):
        found = _checker(size_of(source, task.width), task.quality)(result.read_bytes())
        if found is not None:
            wrong, problem = wrong + 1, problem or f"{result.name}: {found}"
    return wrong, problem


def look(results: Sequence[Path], task: Task, different: int) -> Seen:
    """Decode the first ``different`` results: the other files are copies of the same images.

    Raises ``OSError`` and ``ValueError`` for a result that cannot be decoded or has another size.
    """
    likeness = []
    for source, result in zip(task.files[:different], results[:different], strict=True):
        likeness.append(ssim(decode(result.read_bytes()), _reference(source, task.width)))
    size = sum(path.stat().st_size for path in results)
    return Seen(sum(likeness) / len(likeness), min(likeness), size)


@cache
def _checker(size: tuple[int, int], quality: int) -> Callable[[bytes], str | None]:
    width, height = size
    return checker(format="jpeg", width=width, height=height, quality=quality)


@cache
def _reference(source: Path, width: int) -> Pixels:
    return reference(source, *size_of(source, width))
