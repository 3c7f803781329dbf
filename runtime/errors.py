"""Every failure that has a name.

Nothing here knows HTTP: `dialects/problem.py` is the one table that turns these into statuses, and a test asserts that
each has its row there. A message says what came, what was expected and what to do, by type, shape, position and name;
it never holds a value from a request, a path of the machine or a traceback, because it is sent to the client as it is.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class RuntimeFault(Exception):
    """The root of all named failures; `code` is the stable word by which clients and metrics tell them apart."""

    code: ClassVar[str] = "internal"


# --- what a request can get wrong -------------------------------------------------------------------------------------


class BadRequest(RuntimeFault):
    """The body is not of the form that its type promises: not parseable, too deep, a key twice."""

    code = "bad_request"


class BodyTooLarge(RuntimeFault):
    """The body is over a limit in bytes."""

    code = "body_too_large"


class BodyTimeout(RuntimeFault):
    """The body did not arrive within BODY_TIMEOUT_S."""

    code = "body_timeout"


class UnsupportedType(RuntimeFault):
    """A Content-Type or Content-Encoding that nobody here reads."""

    code = "unsupported_media_type"


class NotAcceptable(RuntimeFault):
    """The Accept header takes nothing that can be answered here."""

    code = "not_acceptable"


class InputMismatch(RuntimeFault):
    """Parsed, but it does not fit the model: keys, rows, columns, datatypes or shapes."""

    code = "input_mismatch"


class NotSupported(RuntimeFault):
    """A part of a protocol that is not served here, and never will be by trying again."""

    code = "not_supported"


class ModelNotFound(RuntimeFault):
    """No model of that name or version is served here."""

    code = "model_not_found"


# --- what the server cannot do now ------------------------------------------------------------------------------------


class NotReady(RuntimeFault):
    """The model is still loading, or, `lasting`, its load failed: then trying again here is in vain."""

    code = "not_ready"

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        super().__init__(text)
        self.lasting = lasting


class Overloaded(RuntimeFault):
    """The queue or the bytes in flight are at their limit; the request was never run and may be sent again."""

    code = "overloaded"


class Draining(RuntimeFault):
    """The worker is stopping and takes no new work."""

    code = "draining"


class DeadlinePassed(RuntimeFault):
    """The request's time was over before its answer was there. If it still queued, it was never run."""

    code = "deadline_passed"


class ClientLeft(RuntimeFault):
    """The client closed its connection; nobody reads the answer, so this never becomes one."""

    code = "client_left"


# --- what the model can get wrong -------------------------------------------------------------------------------------


class ModelFailed(RuntimeFault):
    """The model raised, or answered with another number of rows than it was given."""

    code = "model_failed"


class NotRepresentable(RuntimeFault):
    """The model's answer holds a value that the dialect has no form for, such as Infinity in JSON."""

    code = "not_representable"


# --- what ends a load -------------------------------------------------------------------------------------------------


class ArtifactFault(RuntimeFault):
    """The model cannot be had from what lies there. The text may name paths: only the operator reads it."""

    code = "artifact"


class ModelNotThere(ArtifactFault):
    """Nothing that could be served lies at the model's place."""

    code = "model_not_there"


class AmbiguousArtifact(ArtifactFault):
    """Two candidates at one level: this never guesses."""

    code = "ambiguous_artifact"


class UnsafeLink(ArtifactFault):
    """A link leads out of the model root."""

    code = "unsafe_link"


class BadArtifact(ArtifactFault):
    """The file is not what its name says, is cut, or cannot be loaded."""

    code = "bad_artifact"


class UnsupportedModel(ArtifactFault):
    """It loads, but it is nothing that this runtime can serve."""

    code = "unsupported_model"


class VersionMismatch(ArtifactFault):
    """It was made with other versions of libraries than are here, in which it may fail or answer differently."""

    code = "version_mismatch"


class MissingModule(ArtifactFault):
    """It needs a package, or code of its author, that is not here."""

    code = "missing_module"


class UnsafeType(ArtifactFault):
    """A file of a safe format holds types that nobody has vouched for."""

    code = "unsafe_type"


class DeviceUnavailable(ArtifactFault):
    """DEVICE asks for what this machine or this image does not have."""

    code = "device_unavailable"


class BadSetting(RuntimeFault):
    """A variable holds what it must not hold."""

    code = "bad_setting"


# --- what keeps an artifact from being fetched ------------------------------------------------------------------------


class SourceFault(ArtifactFault):
    """A source did not give what was asked of it. `passing`: trying again may help."""

    code = "source"
    passing: ClassVar[bool] = False


class SourceDenied(SourceFault):
    """The store knows the caller not, or does not let it: 401, 403, credentials that are missing, wrong or expired."""

    code = "source_denied"


class SourceNotThere(SourceFault):
    """The bucket, the object, or anything below the prefix is not there."""

    code = "source_not_there"


class SourceUnavailable(SourceFault):
    """The store cannot be reached, is busy or broke off: 429, 5xx, time-outs, resets, short bodies."""

    code = "source_unavailable"
    passing = True


class SourceChanged(SourceFault):
    """An object was replaced while it was being fetched."""

    code = "source_changed"


class BadListing(SourceFault):
    """What lies there can be no directory of a model: keys that lead out of it, too many of them."""

    code = "bad_listing"


class BadSource(SourceFault):
    """The store answered with what cannot be a model: a web page, a redirect to an unsafe address."""

    code = "bad_source"


class IntegrityMismatch(SourceFault):
    """The bytes are not those that the store says."""

    code = "integrity_mismatch"


class PinMismatch(IntegrityMismatch):
    """The bytes are not those that MODEL_SHA256 says."""

    code = "pin_mismatch"


class NoSpace(SourceFault):
    """The disk is too small, or full, or must not be written."""

    code = "no_space"


class FetchTimeout(SourceFault):
    """It was not fetched within FETCH_TIMEOUT_S."""

    code = "fetch_timeout"


class MissingLibrary(SourceFault):
    """A scheme needs a package that is not here."""

    code = "missing_library"


# --- how a message names what came ------------------------------------------------------------------------------------

_KINDS = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    dict: "an object",
    type(None): "null",
}


def kind_of(value: object) -> str:
    """Name the JSON type of `value`, with the length of an array, never the value itself."""
    if isinstance(value, list):
        return f"an array of {len(value)}"
    return _KINDS.get(type(value), "something that JSON does not know")


def one_line(said: object, most: int = 300) -> str:
    """What something says, often an error of others, fit for a sentence: on one line, and not longer than `most`."""
    return " ".join(str(said).split())[:most]


def plural(count: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown `word`: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(word[:64], names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return "expected " + " or ".join(repr(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")


def quoted(word: str) -> str:
    """A name that a client chose, made fit for a message or a log line: printable, at most 64 characters."""
    shown = word if len(word) <= 64 else word[:61] + "..."
    return ascii(shown)
