"""The form in which our own paths say what went wrong."""

import http

import orjson
import pytest

from runtime.dialects.problem import CONTENT_TYPE, REFUSALS, STATUSES, body, status_of
from runtime.errors import InputMismatch, Overloaded, RuntimeFault


@pytest.mark.parametrize("kind", STATUSES)
def test_a_problem_document(kind: type[RuntimeFault]) -> None:
    status = status_of(kind(""))
    assert status == STATUSES[kind]
    assert REFUSALS.media_type == CONTENT_TYPE.decode() == "application/problem+json"
    document = orjson.loads(REFUSALS.write(status, kind.code, "what came, what was expected, what to do", "id-1"))
    assert document.keys() >= set(REFUSALS.schema["required"])
    title = document.pop("title")
    assert document == {
        "type": f"urn:ml-runtime:problem:{kind.code}",
        "status": status,
        "detail": "what came, what was expected, what to do",
        "code": kind.code,
        "error": "what came, what was expected, what to do",
        "request_id": "id-1",
    }
    assert title == (http.HTTPStatus(status).phrase if status != 499 else "Error")


def test_a_failure_without_a_row_is_the_servers() -> None:
    class New(RuntimeFault):
        pass

    class Special(InputMismatch):
        pass

    assert status_of(New("")) == 500
    assert status_of(Special("")) == 500


@pytest.mark.parametrize("detail", ['"quotes"', "line\nbreak", "\x1b[31m", "Ålesund \u2028", "\\"])
def test_any_text_is_one_json_document(detail: str) -> None:
    assert orjson.loads(body(503, Overloaded.code, detail, "id"))["detail"] == detail
