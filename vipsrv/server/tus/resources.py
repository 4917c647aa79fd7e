"""The resources of tus 1.0: ``/files``, where uploads are created, and ``/files/ID``, one of them.

::

    /files      OPTIONS  what the server can do     POST    create an upload, with its first bytes or without
    /files/ID   HEAD     how much is held           PATCH   append bytes      DELETE   give it up

They are the uploads of the binary protocol: same store, same ids, same owners. ``/resize?upload=ID`` and
``/info?upload=ID`` use one that is complete.
"""

import asyncio
import secrets
import time
from collections.abc import Callable

from vipsrv.errors import BadRequest, Busy, RequestError, TooLarge, UploadConflict
from vipsrv.server.context import ServerContext
from vipsrv.server.http.messages import Headers, HttpRequest, HttpResponse
from vipsrv.server.http.pending import UPLOAD
from vipsrv.server.http.refusals import ContentTooLarge, Locked, NotFound
from vipsrv.server.http.routes import BodyAnswer, BodyRoute, BodyTask, Page, Resource
from vipsrv.server.tus.headers import (
    VERSION,
    Checksum,
    check_content_type,
    check_version,
    expires_header,
    is_upload_bytes,
    read_checksum,
    read_metadata,
    read_size,
    supported_headers,
)
from vipsrv.server.tus.part import NoPart, UploadPart
from vipsrv.server.tus.upload_of import check_upload_id, find_upload, no_such_upload, sender
from vipsrv.server.uploads import Uploads, UploadStatus

COLLECTION = "/files"
EACH = f"{COLLECTION}/*"

_NO_STORE = ("Cache-Control", "no-store")

_PATIENCE_SECONDS = 2.0
"""How long a HEAD waits for another connection to let its upload go, which takes a second at most."""

_ID_BYTES = 16


def tus_resources(context: ServerContext) -> dict[str, Resource]:
    """Return what answers the paths of uploads."""
    tus = Tus(context)
    options = Page(tus.options, public=True, kind=UPLOAD)
    collection = Resource({"OPTIONS": options, "POST": BodyRoute(tus.create, UPLOAD)})
    return {
        COLLECTION: collection,
        f"{COLLECTION}/": collection,
        EACH: Resource(
            {
                "OPTIONS": Page(tus.options_of_one, public=True, kind=UPLOAD),
                "HEAD": Page(tus.head, kind=UPLOAD),
                "PATCH": BodyRoute(tus.append, UPLOAD),
                "DELETE": Page(tus.terminate, kind=UPLOAD),
            }
        ),
    }


def is_tus(path: str) -> bool:
    """Whether a path is that of a resource of tus."""
    return path == COLLECTION or path.startswith(f"{COLLECTION}/")


def version_headers(request: HttpRequest) -> Headers:
    """Return the fields that each reply of these resources has, also one that is refused."""
    if request.method == "OPTIONS" or not is_tus(request.path):
        return ()
    return (("Tus-Resumable", VERSION), ("Tus-Version", VERSION))


class Tus:
    """Answers the requests of tus."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def options(self, _: HttpRequest) -> HttpResponse:
        """Return what the server can do. Raises ``RequestError``."""
        limit = self._uploads.describe()["max_bytes"]
        return HttpResponse(status=204, headers=(*supported_headers(limit), _NO_STORE))

    def options_of_one(self, request: HttpRequest) -> HttpResponse:
        """Return the same for what may be an upload. Raises ``RequestError``."""
        check_upload_id(_id_of(request))
        return self.options(request)

    async def head(self, request: HttpRequest) -> HttpResponse:
        """Return how much of an upload is held. Raises ``RequestError``.

        The connection that is filling it lets it go: otherwise more would be held a moment later.
        """
        check_version(request.fields)
        found = await self._find_when_let_go(request)
        metadata: Headers = ()
        if found.metadata:
            metadata = (("Upload-Metadata", found.metadata.decode("ascii")),)
        return HttpResponse(
            status=200,
            headers=(
                ("Upload-Offset", str(found.received)),
                ("Upload-Length", str(found.size)),
                *metadata,
                expires_header(found.expires),
                _NO_STORE,
            ),
        )

    async def _find_when_let_go(self, request: HttpRequest) -> UploadStatus:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return find_upload(self._uploads, request, _id_of(request))
            except Locked as locked:
                if time.monotonic() > give_up:
                    raise
                pause = (locked.retry_after_ms or 0) / 1000
            await asyncio.sleep(pause)

    def terminate(self, request: HttpRequest) -> HttpResponse:
        """Give an upload up. Raises ``RequestError``."""
        check_version(request.fields)
        try:
            was_there = self._uploads.terminate(sender(request), check_upload_id(_id_of(request)))
        except Busy as busy:
            raise Locked(busy.message, retry_after_ms=busy.retry_after_ms) from None
        if not was_there:
            raise no_such_upload()
        return HttpResponse(status=204, headers=(_NO_STORE,))

    def create(self, request: HttpRequest, answer: BodyAnswer) -> BodyTask:
        """Create an upload, and take its first bytes if the request has some. Raises ``RequestError``."""
        fields = request.fields
        check_version(fields)
        for name, advice in (
            ("Upload-Concat", "parts of uploads are not joined here; send one upload"),
            ("Upload-Defer-Length", "is not supported; send Upload-Length"),
        ):
            if name.lower() in fields:
                raise BadRequest(f"{name}: {advice}")
        size = read_size(fields, "Upload-Length")
        metadata = read_metadata(fields)
        checksum = read_checksum(fields)
        limit = self._uploads.describe()["max_bytes"]
        if size > limit:
            raise TooLarge(f"Upload-Length: is {size}, {size - limit} over the limit of {limit}")
        has_bytes = is_upload_bytes(fields) and request.body_size != 0
        if has_bytes and (request.body_size or 0) > size:
            raise ContentTooLarge(f"the body has {request.body_size} bytes, the upload {size}")
        self._context.check_upload(size)
        if request.session is not None:
            request.session.refresh()
        upload_id = secrets.token_hex(_ID_BYTES)
        created = self._uploads.create(sender(request), upload_id, size, (metadata or "").encode("ascii"))
        where = (("Location", _location(request, upload_id)), expires_header(created.expires), _NO_STORE)
        if not has_bytes:
            return NoPart(HttpResponse(status=201, headers=(*where, ("Upload-Offset", "0"))), answer)
        return self._take_part(
            *(request, upload_id, created, checksum),
            lambda offset: HttpResponse(status=201, headers=(*where, ("Upload-Offset", str(offset)))),
            answer,
        )

    def append(self, request: HttpRequest, answer: BodyAnswer) -> BodyTask:
        """Take bytes that follow those of an upload. Raises ``RequestError``."""
        check_version(request.fields)
        check_content_type(request.fields)
        offset = read_size(request.fields, "Upload-Offset")
        checksum = read_checksum(request.fields)
        upload_id = _id_of(request)
        self._context.check_upload(0)
        found = find_upload(self._uploads, request, upload_id)
        size = found.size or 0
        if offset != found.received:
            raise UploadConflict(f"Upload-Offset: is {offset}, but {found.received} of {size} bytes are held")
        if (request.body_size or 0) > size - offset:
            raise ContentTooLarge(
                f"the body has {request.body_size} bytes, but the upload lacks {size - offset} only"
            )
        if offset == size and checksum is None:
            return NoPart(self._appended(offset), answer, most=0)
        return self._take_part(request, upload_id, found, checksum, self._appended, answer)

    @property
    def _uploads(self) -> Uploads:
        """The uploads of this server. Raises ``NotFound`` if it keeps none."""
        uploads = self._context.uploads
        if uploads is None or not uploads.offered:
            raise NotFound("this server keeps no uploads (--upload-ttl 0)")
        return uploads

    def _appended(self, offset: int) -> HttpResponse:
        expires = time.time() + self._context.settings.upload_ttl
        return HttpResponse(
            status=204, headers=(("Upload-Offset", str(offset)), expires_header(expires), _NO_STORE)
        )

    def _take_part(
        self,
        request: HttpRequest,
        upload_id: str,
        found: UploadStatus,
        checksum: Checksum | None,
        succeeded: Callable[[int], HttpResponse],
        answer: BodyAnswer,
    ) -> BodyTask:
        """Take the body of a request into an upload. Raises ``RequestError``."""
        size, announced = found.size or 0, request.body_size
        session = request.session
        usage = None
        if session is not None:
            session.refresh()
            usage = session.admit(announced or 0)
        in_flight = self._context.in_flight

        def ended(received: int) -> None:
            in_flight.requests -= 1
            in_flight.size -= announced or 0
            if usage is not None:
                usage.done()
            if session is None:
                return
            if announced is None:
                session.count(received)
            elif received < announced:
                session.give_back(announced - received)

        try:
            slot = self._uploads.open(sender(request), upload_id, size, found.received)
        except RequestError:
            if usage is not None and session is not None:
                usage.done()
                session.give_back(announced or 0)
            raise
        in_flight.requests += 1
        in_flight.size += announced or 0
        most = size - found.received if announced is None else announced
        return UploadPart(slot, most, checksum, succeeded=succeeded, answer=answer, ended=ended)


def _id_of(request: HttpRequest) -> str:
    return request.path.rpartition("/")[2]


def _location(request: HttpRequest, upload_id: str) -> str:
    """Return the URL of a new upload: absolute, because some clients join a relative one wrongly."""
    path = f"{COLLECTION}/{upload_id}"
    host = request.fields.get("host")
    if not host:
        return path
    # A proxy that decrypts says what the client has used. The client reads its own claim at worst.
    is_https = request.tls or request.fields.get("x-forwarded-proto", "").lower() == "https"
    return f"{'https' if is_https else 'http'}://{host}{path}"
