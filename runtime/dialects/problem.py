"""The one table from a named failure to an HTTP status, and the form in which our own paths say it (RFC 9457).

`error` repeats `detail`, because that is the key that clients of the older services of this kind look for.
"""

import http
from collections.abc import Mapping
from typing import Any, Final

import orjson

from runtime import errors
from runtime.dialects import Refusals
from runtime.errors import RuntimeFault

CONTENT_TYPE: Final = b"application/problem+json"

_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "error": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "code", "error"],
}

STATUSES: Final[Mapping[type[RuntimeFault], int]] = {
    errors.BadRequest: 400,
    errors.ModelNotFound: 404,
    errors.NotAcceptable: 406,
    errors.BodyTimeout: 408,
    errors.BodyTooLarge: 413,
    errors.UnsupportedType: 415,
    errors.InputMismatch: 422,
    errors.ClientLeft: 499,  # nobody reads it; it is what proxies log, and counted so
    errors.ModelFailed: 500,
    errors.NotRepresentable: 500,
    errors.NotSupported: 501,
    errors.NotReady: 503,
    errors.Overloaded: 503,
    errors.Draining: 503,
    errors.DeadlinePassed: 504,
    # These end the start, so no request ever meets them; should one, it is the server's fault.
    errors.ArtifactFault: 500,
    errors.ModelNotThere: 500,
    errors.AmbiguousArtifact: 500,
    errors.UnsafeLink: 500,
    errors.BadArtifact: 500,
    errors.UnsupportedModel: 500,
    errors.VersionMismatch: 500,
    errors.MissingModule: 500,
    errors.UnsafeType: 500,
    errors.DeviceUnavailable: 500,
    errors.SourceFault: 500,
    errors.SourceDenied: 500,
    errors.SourceNotThere: 500,
    errors.SourceUnavailable: 500,
    errors.SourceChanged: 500,
    errors.BadListing: 500,
    errors.BadSource: 500,
    errors.IntegrityMismatch: 500,
    errors.PinMismatch: 500,
    errors.NoSpace: 500,
    errors.FetchTimeout: 500,
    errors.MissingLibrary: 500,
    errors.BadSetting: 500,
}

# Seconds after which trying again is worth it, for every 503.
RETRY_AFTER: Final = b"1"


def status_of(fault: RuntimeFault) -> int:
    """The status of a failure."""
    return STATUSES.get(type(fault), 500)


def body(status: int, code: str, detail: str, request_id: str) -> bytes:
    """A problem document."""
    try:
        title = http.HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    return orjson.dumps(
        {
            "type": f"urn:ml-runtime:problem:{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "code": code,
            "error": detail,
            "request_id": request_id,
        }
    )


REFUSALS: Final = Refusals("Problem", body, _SCHEMA, CONTENT_TYPE.decode())
