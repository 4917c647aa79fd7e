"""The JSON object of a successful reply: facts about the image and the results, and times."""

from vipsrv.errors import InternalError
from vipsrv.server.timeline import Timeline
from vipsrv.workers.job import Outcome


def report_json(outcome: Outcome, timeline: Timeline) -> tuple[bytes, int]:
    """Return the report on a successful outcome, and the size in bytes of the results that follow it.

    ``ResizeReport.from_meta`` reads it; for an INFO it is an object with the ``source`` alone. Formatted by
    hand, because every request needs one: building dictionaries for ``json`` costs several times as much.
    """
    source = outcome.source
    if source is None:
        raise InternalError("a worker replied without an error and without an image")
    # The names of formats need no escapes: the channel allows only letters, digits and hyphens.
    source_json = (
        f'{{"format":"{source.format}","width":{source.width},"height":{source.height},"pages":{source.pages},'
        f'"has_alpha":{"true" if source.has_alpha else "false"},"orientation":{source.orientation},'
        f'"size":{source.size}}}'
    )
    placeholder = ""
    if outcome.placeholder is not None:
        # They need no escapes either: the channel allows none of the characters that do.
        texts = outcome.placeholder.to_meta().items()
        placeholder = ',"placeholder":{' + ",".join(f'"{name}":"{text}"' for name, text in texts) + "}"
    if not outcome.outputs:
        return f'{{"source":{source_json}{placeholder}}}'.encode(), 0
    size = 0
    outputs = []
    for output in outcome.outputs:
        size += output.size
        frames = "" if output.frames is None else f',"frames":{output.frames}'
        outputs.append(
            f'{{"width":{output.width},"height":{output.height},"format":"{output.format}",'
            f'"quality":{output.quality},"size":{output.size}{frames}'
            + ("}" if output.ssim is None else f',"ssim":{output.ssim:.5f}}}')
        )
    report = (
        f'{{"source":{source_json},"outputs":[{",".join(outputs)}],'
        f'"ms":{{"receive":{timeline.receive_ms:.3f},"queue":{timeline.queue_ms:.3f},'
        f'"process":{timeline.process_ms:.3f},"total":{timeline.total_ms:.3f}}},'
        f'"ratio":{source.size / size:.3f}{placeholder}}}'
    )
    return report.encode(), size
