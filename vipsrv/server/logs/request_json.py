"""The JSON of a request's line. ``RequestLine.fields`` has the same values, for people.

Formatted by hand, because every request needs one: building dictionaries and encoding them takes more than
twice as long. What is not a number or a word of the server itself goes through the JSON encoder.
"""

import json

from vipsrv.errors import InternalError
from vipsrv.printable import printable
from vipsrv.server.logs.request_line import RequestLine, peer_text
from vipsrv.server.request_ids import NO_IDS

_quote = json.JSONEncoder(ensure_ascii=False).encode


def request_json(line: RequestLine, when: str) -> str:
    """Return the JSON object of a request that ended at ``when``."""
    more = ""
    if line.identity is not None:
        more = f',"identity":{_quote(printable(line.identity))}'
    if (protocol := line.protocol) is not None:
        more += f',"protocol":"{protocol}"'
    return (
        f'{{"time":"{when}","level":"{line.level}","event":"request","connection":{line.connection},'
        f'"id":{line.request_id},"peer":{_quote(peer_text(line.peer))}{more},"kind":"{line.kind}",'
        f'"status":{line.status},"code":"{line.code}"{_images(line)}{_stages(line)}{_rest(line)}}}'
    )


def _images(line: RequestLine) -> str:
    source, size = line.source, line.image_size
    text = ""
    if source is not None:
        # The names of formats need no escapes: the channel allows only letters, digits and hyphens.
        text = (
            f',"source":{{"format":"{source.format}","width":{source.width},"height":{source.height},'
            f'"bytes":{size}}}'
        )
    elif size:
        received = f',"received":{line.received}' if line.received else ""
        text = f',"source":{{"bytes":{size}{received}}}'
    if not line.outputs:
        return text
    results = [
        f'{{"format":"{one.format}","width":{one.width},"height":{one.height},"bytes":{one.size}}}'
        for one in line.outputs
    ]
    return f'{text},"results":[{",".join(results)}],"ratio":{line.ratio:.3f}'


def _stages(line: RequestLine) -> str:
    timeline = line.timeline
    if timeline is None:
        return ""
    received, started, ended, sent = timeline.received, timeline.started, timeline.ended, line.sent
    text = ""
    if received:
        text = f'"receive":{(received - timeline.arrived) * 1000:.3f},'
        if started:
            text += f'"queue":{(started - received) * 1000:.3f},'
            if ended:
                text += f'"process":{(ended - started) * 1000:.3f},'
    if sent:
        text += f'"send":{(sent - timeline.replied) * 1000:.3f},'
    return f',"ms":{{{text}"total":{((sent or timeline.replied) - timeline.arrived) * 1000:.3f}}}'


def _rest(line: RequestLine) -> str:
    text = f',"worker":{line.worker}' if line.worker else ""
    if line.ids is not NO_IDS:
        request_id, traceparent, _ = line.ids
        if request_id is not None:
            text += f',"request_id":{_quote(printable(request_id))}'
        if traceparent is not None:
            text += f',"traceparent":{_quote(traceparent)}'
    error = line.error
    if error is not None:
        text += f',"error":{_quote(printable(error.message))}'
        if isinstance(error, InternalError) and error.where:
            text += f',"where":{_quote(printable(error.where))}'
    if line.lost is not None:
        text += f',"lost":{_quote(line.lost)}'
    return f'{text},"sample":{line.sample}' if line.sample > 1 else text
