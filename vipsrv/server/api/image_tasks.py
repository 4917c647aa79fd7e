"""The work behind ``POST /resize`` and ``POST /info``: from the head of a request to its reply."""

from typing import Any

from vipsrv.errors import BadRequest, InternalError, UnsupportedFormat
from vipsrv.options import MAX_REQUEST_ID
from vipsrv.printable import printable
from vipsrv.server.api.form_data import form_boundary
from vipsrv.server.api.negotiation import preferred_format, prefers_zip
from vipsrv.server.api.parameters import PLACEHOLDER, ResizeParameters
from vipsrv.server.api.query import parse_query
from vipsrv.server.api.reply_headers import (
    COMMON,
    MEDIA_TYPES,
    id_field,
    placeholder_field,
    ratio_field,
    result_field,
    source_field,
    timing_field,
)
from vipsrv.server.api.several_results import mixed, zip_file
from vipsrv.server.context import ServerContext
from vipsrv.server.exchange import Exchange
from vipsrv.server.http.messages import Headers, HttpRequest, HttpResponse
from vipsrv.server.http.routes import ImageTask
from vipsrv.server.report import report_json
from vipsrv.server.tus.upload_of import take_upload_id, upload_meta
from vipsrv.workers.channel import Digest, Operation

VARY_ACCEPT: Headers = (("Vary", "Accept"),)


class ResizeTask(ImageTask):
    """The work of one ``POST /resize``. Raises ``BadRequest``."""

    operation = Operation.RESIZE

    def __init__(self, context: ServerContext, request: HttpRequest) -> None:
        self.form_boundary = _boundary(request)
        self._context = context
        self._request = request
        self._ids = _ids(request)
        self._parameters = ResizeParameters()
        upload_id, parameters = take_upload_id(parse_query(request.query))
        for name, value in parameters:
            self._parameters.add(name, value)
        self._upload = upload_meta(context, request, upload_id)
        self._update()

    def form_field(self, name: str, value: str) -> None:
        """Take a field of the form, which is a parameter as in the query. Raises ``BadRequest``.

        An empty one is left out: so a browser sends an input that nobody has filled in.
        """
        if value:
            self._parameters.add(name, value)
        else:
            self._parameters.check_name(name)
        self._update()

    def reply(self, exchange: Exchange) -> HttpResponse:
        """Return the reply, which owns the result. Raises ``RequestError``."""
        outcome = exchange.outcome
        if outcome is None or outcome.source is None or outcome.result is None:
            raise InternalError("a worker replied without an error and without a result")
        source, outputs, result = outcome.source, outcome.outputs, outcome.result
        inserts: tuple[tuple[int, bytes], ...] = ()
        negotiated = self._parameters.is_auto
        if not self._parameters.has_outputs:
            media_type = MEDIA_TYPES[outputs[0].format]
            etag = f'"{outcome.digests[0].tag.hex()}"'
        else:
            negotiated = True
            try:
                container = (zip_file if self._in_zip else mixed)(outputs, outcome.digests)
            except BaseException:
                result.close()
                raise
            media_type, inserts = container.media_type, container.inserts
            etag = container.etag(outcome.digests)
        return HttpResponse(
            status=200,
            headers=(
                ("Content-Type", media_type),
                ("ETag", etag),
                source_field(source),
                result_field(outputs),
                ratio_field(source, outputs),
                *placeholder_field(outcome.placeholder),
                timing_field(exchange.timeline),
                *COMMON,
                *(VARY_ACCEPT if negotiated else ()),
                *id_field(self._ids.get("request_id")),
            ),
            result=result,
            inserts=inserts,
        )

    def _update(self) -> None:
        parameters = self._parameters
        accept = self._request.fields.get("accept", "")
        auto = None
        if parameters.is_auto:
            auto = preferred_format(accept, self._writable(), animated=parameters.is_animated)
        self.meta = {**parameters.meta(auto), **self._ids, **self._upload}
        self._in_zip = parameters.has_outputs and prefers_zip(accept)
        self.digest = Digest.TAG_AND_CRC if self._in_zip else Digest.TAG

    def _writable(self) -> tuple[str, ...]:
        """Return the formats of results that the server writes and the client's token allows."""
        return tuple(described_for(self._context, self._request).get("formats", {}).get("out", ()))


class InfoTask(ImageTask):
    """The work of one ``POST /info``. Raises ``BadRequest``."""

    operation = Operation.INFO

    def __init__(self, context: ServerContext, request: HttpRequest) -> None:
        self.form_boundary = _boundary(request)
        upload_id, parameters = take_upload_id(parse_query(request.query))
        self.meta = {**_ids(request), **upload_meta(context, request, upload_id)}
        for name, value in parameters:
            self.form_field(name, value)

    def form_field(self, name: str, value: str) -> None:
        """Take a field of the form, which is a parameter as in the query. Raises ``BadRequest``."""
        if name != PLACEHOLDER.name:
            raise BadRequest(f"{printable(name[:40])}: /info has no parameters but placeholder and upload")
        if name in self.meta:
            raise BadRequest(f"{name}: is given twice")
        if value:
            self.meta[name] = PLACEHOLDER.read(value)

    def reply(self, exchange: Exchange) -> HttpResponse:
        """Return what the header of the image states. Raises ``RequestError``."""
        if exchange.outcome is None:
            raise InternalError("a worker replied without an error and without an image")
        body, _ = report_json(exchange.outcome, exchange.timeline)
        return HttpResponse(
            status=200,
            headers=(
                ("Content-Type", "application/json"),
                timing_field(exchange.timeline),
                *COMMON,
                *id_field(self.meta.get("request_id")),
            ),
            body=body + b"\n",
        )


def _boundary(request: HttpRequest) -> bytes | None:
    """Return the boundary of a form, or ``None`` if the body is the image.

    Raises ``UnsupportedFormat`` for a body that is compressed once more (RFC 9110, 15.5.16).
    """
    coding = request.fields.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise UnsupportedFormat(
            f"Content-Encoding: {printable(coding[:40])} is not supported; send the image as it is"
        )
    return form_boundary(request.fields.get("content-type", ""))


def _ids(request: HttpRequest) -> dict[str, Any]:
    """Return the ids of a request in its header, as in the meta of the binary protocol."""
    request_id, traceparent = (request.fields.get(name) for name in ("x-request-id", "traceparent"))
    ids: dict[str, Any] = {}
    if request_id is not None:
        if (
            not 0 < len(request_id) <= MAX_REQUEST_ID
            or not request_id.isascii()
            or not request_id.isprintable()
        ):
            raise BadRequest(f"X-Request-Id: must have 1 to {MAX_REQUEST_ID} printable ASCII characters")
        ids["request_id"] = request_id
    if traceparent is not None:
        ids["traceparent"] = traceparent
        tracestate = request.fields.get("tracestate")
        if tracestate is not None:
            ids["tracestate"] = tracestate
    return ids


def described_for(context: ServerContext, request: HttpRequest) -> dict[str, Any]:
    """Return what a HELLO reply says to this client."""
    described = context.describe()
    return described if request.session is None else request.session.describe(described)
