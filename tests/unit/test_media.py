"""Content-Type and Accept, as clients write them and as nobody should."""

import pytest

from runtime.dialects.media import CSV, JSON, NPY, accepted, content_type, npy_at
from runtime.errors import NotAcceptable, UnsupportedType

TYPES = (JSON, CSV, NPY)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (b"application/json", JSON),
        (b"Application/JSON", JSON),
        (b"application/json; charset=utf-8", JSON),
        (b'application/json;charset="UTF-8"', JSON),
        (b"application/json;", JSON),
        (b" application/json ;; odata=verbose", JSON),
        (b"application/vnd.api+json", JSON),
        (b"text/csv", CSV),
        (b"TEXT/CSV; Charset=ASCII", CSV),
        (b"application/x-npy", NPY),
    ],
)
def test_what_a_body_is(given: bytes, kind: str) -> None:
    assert content_type(given, TYPES)[0] == kind


@pytest.mark.parametrize(
    ("given", "header"),
    [
        (b"text/csv", ""),
        (b"text/csv;header=absent", "absent"),
        (b"text/csv; Header = Present", "present"),
        (b'text/csv; charset=utf-8; header="absent"', "absent"),
    ],
)
def test_whether_csv_has_a_header(given: bytes, header: str) -> None:
    assert content_type(given, TYPES)[1].get("header", "") == header


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "the Content-Type is missing, expected application/json or text/csv or application/x-npy"),
        (b"", "is missing"),
        (b";charset=utf-8", "is missing"),
        (b"text/plain", "is 'text/plain'"),
        (b"application/json, text/csv", "is 'application/json, text/csv'"),
        (b"json", "is 'json'"),
        (b"text/csv+json", "is 'text/csv+json'"),
        (b"application/x-npz", "is 'application/x-npz'"),
        (b"application/x-www-form-urlencoded", "expected application/json"),
        (b"application/json; charset=utf-16", "the charset of the Content-Type is 'utf-16', expected utf-8"),
        (b"text/csv; charset=latin-1", "expected utf-8"),
        (b"text/csv; header=maybe", "the parameter header of the Content-Type is 'maybe', expected present or absent"),
        (b"\xff\x1b[31m\x00" * 100, "the Content-Type is"),
    ],
)
def test_what_no_body_is(given: bytes | None, says: str) -> None:
    with pytest.raises(UnsupportedType) as refused:
        content_type(given, TYPES)
    assert says in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (None, JSON),
        (b"", JSON),
        (b"*/*", JSON),
        (b"application/json", JSON),
        (b"APPLICATION/JSON", JSON),
        (b"text/csv", CSV),
        (b"Text/CSV; charset=utf-8", CSV),
        (b"application/x-npy", NPY),
        (b"application/*", JSON),
        (b"text/*", CSV),
        # what browsers and clients' libraries send
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", JSON),
        (b"application/json, text/plain, */*", JSON),
        (b"text/plain, */*", JSON),
        # weights
        (b"text/csv;q=0.5, application/x-npy", NPY),
        (b"text/csv;q=0.5, application/x-npy;q=0.9, */*;q=0.1", NPY),
        (b"application/json;q=0.1, */*", CSV),
        (b"application/json;q=0, */*", CSV),
        (b"application/json;q=0, text/*;q=0, */*;q=0.001", NPY),
        (b"*/*;q=0.2, text/csv;q=0.1", JSON),
        # of equal weight: named before covered, then the first
        (b"*/*, text/csv", CSV),
        (b"text/csv, application/json", CSV),
        (b"application/json, text/csv", JSON),
        (b"application/json;q=0.5,application/x-npy;q=0.5", JSON),
        # malformed parts count for nothing
        (b",,text/csv;q=1,,", CSV),
        (b"text/csv;q=x, application/x-npy;q=0.1", NPY),
        (b"text/csv;q=nan, application/x-npy;q=0.1", NPY),
        (b"text/csv;q=-1, application/json;q=0.1", JSON),
        (b"text/csv;q=inf, application/json", CSV),
        (b"\xff\xfe;;==;q, application/json", JSON),
    ],
)
def test_what_is_answered_in(given: bytes | None, kind: str) -> None:
    assert accepted(given, TYPES)[0] == kind


def test_the_parameters_are_those_of_the_type_that_was_chosen() -> None:
    kind, parameters = accepted(b"application/json;q=0.5;header=present, text/csv; header=absent", TYPES)
    assert (kind, parameters["header"]) == (CSV, "absent")


@pytest.mark.parametrize(
    "given", [b"text/html", b",", b"application/json;q=0", b"*/*;q=0", b"image/*", b"text/csv;q=", b"json", b"\x00\xff" * 1000]
)
def test_nothing_that_could_be_answered(given: bytes) -> None:
    with pytest.raises(NotAcceptable, match=r"takes none of application/json, text/csv, application/x-npy"):
        accepted(given, TYPES)


def test_only_what_is_offered() -> None:
    assert accepted(b"text/csv, application/json;q=0.1", (JSON, NPY))[0] == JSON
    with pytest.raises(NotAcceptable):
        accepted(b"text/csv", (JSON, NPY))


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        (b"application/x-npy", 0),
        (b"Application/X-NPY", 0),
        (b"application/x-npy; version=1", 0),
        (b" application/x-npy ;", 0),
        (b"application/json", None),
        (b"application/json; a=application/x-npy", None),
        (b"application/x-npy, application/json", None),
        (b"application/json;application/x-npy", None),
        (b"application/x-npyx", None),
        (b"text/csv", None),
        (b"", None),
        (None, None),
    ],
)
def test_where_the_tensors_of_a_body_begin(kind: bytes | None, begins: int | None) -> None:
    assert npy_at({} if kind is None else {b"content-type": kind}) == begins
