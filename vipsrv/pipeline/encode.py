"""The last step: a picture becomes the bytes of a file. Here libvips computes what was only planned."""

import pyvips

from vipsrv.errors import TooLarge
from vipsrv.options import Format, Keep
from vipsrv.pipeline.calls import Call
from vipsrv.pipeline.plan import Plan
from vipsrv.pipeline.stopping import Watch, stop_now_if

LOSSLESS_QUALITY = 100
"""What is told as the quality of a result that has none."""

_save_jpeg = Call("jpegsave_buffer", "in", "Q", output="buffer", keep="none")
"""What most requests ask for."""


def encode(image: pyvips.Image, plan: Plan, watch: Watch | None) -> tuple[bytes, int]:
    """The result, without metadata but what the options keep, and its quality.

    Raises ``pyvips.Error``, ``TooLarge`` where ``max_bytes`` cannot be held, and what ``watch`` gave.
    """
    if plan.lossless:
        return _write(image, plan, None), LOSSLESS_QUALITY
    if plan.options.max_bytes is None:
        return _write(image, plan, plan.quality), plan.quality
    return _write_within(image.copy_memory(), plan, plan.options.max_bytes, watch)


def _write_within(image: pyvips.Image, plan: Plan, most: int, watch: Watch | None) -> tuple[bytes, int]:
    """The highest quality up to the plan's that gives no more than ``most`` bytes, by bisection: up to eight
    encodes of a picture that is in memory.
    """
    data, best = _write(image, plan, plan.quality), plan.quality
    if len(data) <= most:
        return data, best
    found, fits, fails = b"", 0, best
    while fails - fits > 1:
        stop_now_if(watch)
        # Often there is little to lose, or nothing to gain; so the lowest is asked last.
        quality = (fits + fails) // 2
        data = _write(image, plan, quality)
        if len(data) <= most:
            found, fits = data, quality
        else:
            fails = quality
    if not found:
        raise TooLarge(
            f"max_bytes: at quality 1 the {plan.writer.format} still has {len(data)} bytes; "
            f"{most} are allowed"
        )
    return found, fits


def _write(image: pyvips.Image, plan: Plan, quality: int | None) -> bytes:
    data: bytes
    if plan.writer.format is Format.JPEG and plan.options.keep is Keep.NONE:
        data = _save_jpeg(image, quality)
        return data
    how = dict(plan.writer.options)
    if quality is not None:
        how["Q"] = quality
    elif plan.options.lossless and plan.writer.lossy:
        how["lossless"] = True
    data = pyvips.Operation.call(plan.writer.saver, image, keep=plan.options.keep.value, **how)
    return data
