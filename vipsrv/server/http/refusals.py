"""The refusals of HTTP that the binary protocol does not know: each is a ``BadRequest`` with its own status.

A route and a connection raise them as any ``RequestError``, and ``Routes.problem`` makes the reply.
"""

from vipsrv.errors import BadRequest


class NotFound(BadRequest):
    """Nothing is at this path (RFC 9110, section 15.5.5)."""

    status = 404
    code = "not_found"


class MethodNotAllowed(BadRequest):
    """The path is for other methods, those in ``allow`` (RFC 9110, section 15.5.6)."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class NotAcceptable(BadRequest):
    """No representation is acceptable to the client (RFC 9110, section 15.5.7)."""

    status = 406
    code = "not_acceptable"


class PreconditionFailed(BadRequest):
    """The client speaks another version of tus (tus 1.0.0, Tus-Resumable)."""

    status = 412
    code = "tus_version"


class ContentTooLarge(BadRequest):
    """The content of a request that is no image is too long (RFC 9110, section 15.5.14)."""

    status = 413
    code = "too_large"


class TargetTooLong(BadRequest):
    """The request line is too long (RFC 9110, section 15.5.15)."""

    status = 414
    code = "target_too_long"


class ExpectationFailed(BadRequest):
    """The client expects something other than 100-continue (RFC 9110, section 15.5.18)."""

    status = 417
    code = "expectation_failed"


class Locked(BadRequest):
    """Another connection is sending the same upload (RFC 4918, section 11.3)."""

    status = 423
    code = "upload_locked"
    retryable = True


class HeadersTooLarge(BadRequest):
    """The fields of a request are too many or too long (RFC 6585, section 5)."""

    status = 431
    code = "headers_too_large"


class ChecksumMismatch(BadRequest):
    """The body is not what its checksum says (tus 1.0.0, the checksum extension)."""

    status = 460
    code = "checksum_mismatch"
    retryable = True


class NotImplementedHere(BadRequest):
    """A method or a transfer coding is unknown (RFC 9110, section 15.6.2)."""

    status = 501
    code = "not_implemented"


class VersionNotSupported(BadRequest):
    """The client speaks another version of HTTP (RFC 9110, section 15.6.6)."""

    status = 505
    code = "version_not_supported"
