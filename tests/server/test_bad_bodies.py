"""Bodies that are wrong, each with the status that the design gives it, and a server that is as before after each."""

import contextlib
import gzip
import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Serve
from tests.models import FLOWER, Models, dataset
from tests.process import Server, assert_fine, assert_problem, eventually, post_bytes

GOOD = {"features": FLOWER}
MAX_JSON_BYTES = 1024 * 1024
MIB = 1024 * 1024
GROWTH_BYTES = 60 * MIB


@pytest.fixture(scope="module")
def shared(serve_module: Serve, models: Models) -> Iterator[Server]:
    server = serve_module(models("iris"), MAX_JSON_BYTES=MAX_JSON_BYTES)
    for _ in range(50):
        server.predict(GOOD)
    base = server.resident_bytes()
    yield server
    eventually(lambda: server.resident_bytes() - base < GROWTH_BYTES, "memory is near its base again", 5)


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared server, which must be as it was after every test."""
    pid = shared.pid
    yield shared
    assert_fine(shared, GOOD, pid)
    assert not any(line.startswith("Traceback") for line in shared.lines), shared.said()


def send(server: Server, body: bytes, **headers: str) -> Any:
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.post("/predict", content=body, headers=sent)


# --- not parseable: 400 -----------------------------------------------------------------------------------------------

NOT_PARSEABLE: dict[str, bytes] = {
    "empty": b"",
    "blank": b"  \n",
    "malformed": b'{"features": [5.1, 3.5',
    "single quotes": b"{'features': [5.1, 3.5, 1.4, 0.2]}",
    "not JSON at all": b"features=5.1",
    "trailing garbage": b'{"features": [5.1, 3.5, 1.4, 0.2]} x',
    "trailing document": b'{"features": [5.1, 3.5, 1.4, 0.2]}{}',
    "bad UTF-8": b'{"features": [5.1, 3.5, 1.4, 0.2], "\xff\xfe": 1}',
    "a NUL": b'{"features": [5.1, 3.5, 1.4, \x00 0.2]}',
    "UTF-16": '{"features": [5.1, 3.5, 1.4, 0.2]}'.encode("utf-16"),
    "a lone surrogate": b'{"features": [5.1, 3.5, 1.4, "\\ud800"]}',
    "NaN": b'{"features": [5.1, 3.5, NaN, 0.2]}',
    "Infinity": b'{"features": [5.1, 3.5, Infinity, 0.2]}',
    "minus Infinity": b'{"features": [5.1, 3.5, -Infinity, 0.2]}',
    "1e400": b'{"features": [5.1, 3.5, 1e400, 0.2]}',
    "a comment": b'{"features": [5.1, 3.5, 1.4, 0.2]} // row',
    "a comma too many": b'{"features": [5.1, 3.5, 1.4, 0.2,]}',
    "5,000 digits": b'{"features": [5.1, 3.5, 1.4, ' + b"7" * 5000 + b"]}",
    "nested 101 deep": b'{"features": ' + b"[" * 101 + b"1" + b"]" * 101 + b"}",
    "nested 400,000 deep": b'{"features": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
    "objects nested deep": b'{"features": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "opened 1,000,000 times": b"[" * 1_000_000,
    "features twice": b'{"features": [5.1, 3.5, 1.4, 0.2], "features": [6.1, 3.5, 1.4, 0.2]}',
    "features twice, once escaped": b'{"features": [5.1, 3.5, 1.4, 0.2], "fe\\u0061tures": [6.1, 3.5, 1.4, 0.2]}',
}


@pytest.mark.parametrize("case", NOT_PARSEABLE)
def test_what_cannot_be_parsed_is_400(server: Server, case: str) -> None:
    problem = assert_problem(send(server, NOT_PARSEABLE[case]), 400)
    assert problem["code"] == "bad_request"
    assert "7777" not in problem["detail"]


# --- parsed, but does not fit: 422 ------------------------------------------------------------------------------------

DOES_NOT_FIT: dict[str, tuple[object, list[str]]] = {
    "an object without keys": ({}, ["features"]),
    "a number": (5, ["object"]),
    "a string": ("features", ["object"]),
    "null": (None, ["object"]),
    "true": (True, ["object"]),
    "an unknown key": ({"data": FLOWER}, ["data", "features"]),
    "a key near to the right one": ({"feature": FLOWER}, ["features"]),
    "another near one": ({"instance": [FLOWER]}, ["instances"]),
    "an unknown key beside a known one": ({**GOOD, "threshold": 0.5}, ["threshold"]),
    "two forms": ({**GOOD, "instances": [FLOWER]}, ["features", "instances"]),
    "two other forms": ({"inputs": {"input": [FLOWER]}, "instances": [FLOWER]}, ["inputs", "instances"]),
    "only outputs": ({"outputs": ["predict"]}, ["features"]),
    "features null": ({"features": None}, ["features", "null"]),
    "features a string": ({"features": "5.1 3.5 1.4 0.2"}, ["features", "a string"]),
    "features a number": ({"features": 5.1}, ["features", "a number"]),
    "features an empty array": ({"features": []}, ["features", "4"]),
    "features an empty row": ({"features": [[]]}, ["features", "4"]),
    "too few values": ({"features": FLOWER[:3]}, ["features", "3", "4"]),
    "too many values": ({"features": [*FLOWER, 1.0]}, ["features", "5", "4"]),
    "a string for a number": ({"features": [5.1, "3.5", 1.4, 0.2]}, ["features[1]", "a string", "number"]),
    "a boolean for a number": ({"features": [5.1, True, 1.4, 0.2]}, ["features[1]", "a boolean", "number"]),
    "null for a number": ({"features": [5.1, 3.5, None, 0.2]}, ["features[2]", "null"]),
    "an array for a number": ({"features": [5.1, 3.5, 1.4, [0.2]]}, ["features"]),
    "an object for a number": ({"features": [5.1, 3.5, 1.4, {}]}, ["features[3]", "an object"]),
    "zero rows": ({"instances": []}, ["zero rows"]),
    "instances a row": ({"instances": FLOWER}, ["instances[0]", "array"]),
    "instances null": ({"instances": None}, ["instances", "null"]),
    "instances an object": ({"instances": {"a": 1}}, ["instances", "an object"]),
    "ragged rows": ({"instances": [FLOWER, FLOWER[:2]]}, ["instances[1]", "2", "4"]),
    "all rows too short": ({"instances": [FLOWER[:2], FLOWER[:2]]}, ["instances[0]", "2", "4"]),
    "rows too deep": ({"instances": [[FLOWER]]}, ["instances"]),
    "null in a late row": ({"instances": [FLOWER, FLOWER, [1, 2, None, 4]]}, ["instances[2][2]", "null"]),
    "null for a row": ({"instances": [FLOWER, None]}, ["instances[1]", "null"]),
    "an unknown input": ({"inputs": {"inputt": [FLOWER], "x": [FLOWER]}}, ["input"]),
}


@pytest.mark.parametrize("case", DOES_NOT_FIT)
def test_what_does_not_fit_the_model_is_422(server: Server, case: str) -> None:
    body, words = DOES_NOT_FIT[case]
    problem = assert_problem(send(server, json.dumps(body).encode()), 422, *words)
    assert problem["code"] == "input_mismatch"


def test_a_refusal_never_repeats_a_value(server: Server) -> None:
    for row in (["4111-1111-1111-1111", 1, 2, 3], [31337.25, None, 2, 3], [31337.25] * 7, [[31337.25]]):
        text = server.predict({"features": row}).text
        assert "4111" not in text
        assert "31337" not in text


def test_a_refusal_of_a_long_key_is_short(server: Server) -> None:
    problem = assert_problem(server.predict({"k" * 100_000: 1}), 422)
    assert len(problem["detail"]) < 1000
    problem = assert_problem(server.predict({f"key{i}": 1 for i in range(10_000)}), 422)
    assert len(problem["detail"]) < 1000


def test_control_characters_of_a_key_are_not_repeated(server: Server) -> None:
    problem = assert_problem(server.predict({"\x1b[31mred\r\n": 1}), 422)
    assert problem["detail"].isprintable()


def test_integers_are_numbers(server: Server) -> None:
    assert server.answer({"features": [5, 3, 1, 0]}) == server.answer({"features": [5.0, 3.0, 1.0, 0.0]})


# --- limits: 413 ------------------------------------------------------------------------------------------------------


def assert_cut_off(server: Server, data: bytes) -> None:
    """413, the connection announced as closed and closed, without any more of the body."""
    with server.connect() as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # cut while sending: the answer is there
            connection.send(data)
        reply = connection.reply()
        problem = assert_problem(reply, 413, "MAX_JSON_BYTES")
        assert problem["code"] == "body_too_large"
        assert reply.headers["connection"] == "close"
        assert connection.closed_within(10)


def test_a_length_over_the_limit_is_refused_without_reading(server: Server) -> None:
    head = post_bytes("/predict", b"", {"Content-Length": str(MAX_JSON_BYTES + 1)})
    assert_cut_off(server, head)
    assert_cut_off(server, post_bytes("/predict", b"", {"Content-Length": str(2**63)}))


def test_a_client_that_waits_for_continue_is_refused_before_it_sends(server: Server) -> None:
    head = post_bytes("/predict", b"", {"Content-Length": str(MAX_JSON_BYTES + 1), "Expect": "100-continue"})
    assert_cut_off(server, head)


def test_a_chunked_body_over_the_limit_is_cut_there(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    assert_cut_off(server, head + chunk * (MAX_JSON_BYTES // 0x10000 + 1))


def test_a_body_of_exactly_the_limit_is_read(server: Server) -> None:
    body = json.dumps(GOOD).encode()
    assert send(server, body + b" " * (MAX_JSON_BYTES - len(body))).status_code == 200
    assert_problem(send(server, body + b" " * (MAX_JSON_BYTES - len(body) + 1)), 413)


def test_a_hundred_thousand_chunks_of_one_byte(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = json.dumps(GOOD).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"1\r\n \r\n" * (100_000 - len(body))
    with server.connect() as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(head + chunks + b"0\r\n\r\n")
        reply = connection.reply()
    if reply.status != 200:
        assert_problem(reply, 400 if reply.status == 400 else 413)


def test_small_chunks_of_an_ordinary_body_are_fine(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in json.dumps(GOOD).encode())
    assert server.exchange(head + body + b"0\r\n\r\n").json()["prediction"] == 0


# --- types and encodings: 415 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/x-python-pickle",
        "application/xml",
        "json",
        "",
        "\xff",
        "application/json" * 1000,
    ],
)
def test_a_type_that_nobody_reads_is_415(server: Server, content_type: str) -> None:
    reply = server.exchange(post_bytes("/predict", GOOD, {"Content-Type": content_type}))
    assert assert_problem(reply, 415, "application/json")["code"] == "unsupported_media_type"


def test_no_type_at_all_is_415(server: Server) -> None:
    body = json.dumps(GOOD).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert_problem(server.exchange(head + body), 415, "application/json")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"]
)
def test_json_by_any_spelling_is_read(server: Server, content_type: str) -> None:
    assert send(server, json.dumps(GOOD).encode(), **{"Content-Type": content_type}).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"])
def test_an_encoded_body_is_415(server: Server, encoding: str) -> None:
    bomb = gzip.compress(b" " * 10 * MIB)
    for body in (gzip.compress(json.dumps(GOOD).encode()), bomb):
        assert_problem(send(server, body, **{"Content-Encoding": encoding}), 415, "encoding")


def test_the_encoding_identity_is_no_encoding(server: Server) -> None:
    assert send(server, json.dumps(GOOD).encode(), **{"Content-Encoding": "identity"}).status_code == 200


# --- other formats than JSON: tests/unit/test_csv_text.py and test_npy.py hold the cases of each ----------------------


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_csv_and_npy_are_answered_as_json_is(server: Server) -> None:
    rows = dataset("iris")[0][::15]
    expected = server.predict({"instances": rows.tolist()}).json()
    text = "".join(",".join(map(repr, row)) + "\r\n" for row in rows.tolist())
    assert send(server, text.encode(), Content_Type="text/csv; charset=utf-8").json() == expected
    assert send(server, npy(rows), Content_Type="application/x-npy").json() == expected
    answer = send(server, npy(rows), Content_Type="application/x-npy", Accept="application/x-npy")
    assert np.load(io.BytesIO(answer.content), allow_pickle=False).tolist() == expected["predictions"]


@pytest.mark.parametrize("content_type", ["application/x-npy", "Application/X-NPY; a=application/json"])
def test_a_binary_body_may_be_larger_than_text(server: Server, content_type: str) -> None:
    rows = npy(np.zeros((40_000, 4)))
    assert len(rows) > MAX_JSON_BYTES
    assert "MAX_QUEUE_ROWS" in assert_problem(send(server, rows, Content_Type=content_type), 413)["detail"]
    assert "MAX_JSON_BYTES" in assert_problem(send(server, rows, Content_Type="text/csv"), 413)["detail"]


def test_objects_in_a_npy_body_are_never_unpickled(server: Server, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    body = npy(np.array([[_Touch(marker)] * 4], object), allow_pickle=True)
    detail = assert_problem(send(server, body, Content_Type="application/x-npy"), 422)["detail"]
    assert "never objects" in detail
    assert not marker.exists()


def test_a_text_of_very_many_cells_is_refused_unread(server: Server) -> None:
    for body in (b"1,2,3,4\n" * 130_000, b"," * 1_000_000, b"\r" * 1_000_000):
        assert "commas and line ends" in assert_problem(send(server, body, Content_Type="text/csv"), 400)["detail"]


def test_an_answer_that_nobody_takes_is_406(server: Server) -> None:
    assert "takes none of" in assert_problem(send(server, json.dumps(GOOD).encode(), Accept="text/html"), 406)["detail"]


class _Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_a_pickle_in_the_body_is_not_read(server: Server) -> None:
    body = pickle.dumps(GOOD)
    assert_problem(send(server, body), 400)
    assert_problem(send(server, body, **{"Content-Type": "application/octet-stream"}), 415)


# --- headers that go with a body --------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", ["0", "-5", "soon", "1e3", "", "nan", "9" * 400, "\xff"])
def test_a_timeout_that_is_none_is_refused_by_name_or_left_aside(server: Server, timeout: str) -> None:
    reply = server.exchange(post_bytes("/predict", GOOD, {"X-Request-Timeout-Ms": timeout}))
    assert reply.status in (200, 400, 422, 504), reply.body
    if reply.status != 200:
        assert_problem(reply, reply.status)


# --- numbers that other models do not take ----------------------------------------------------------------------------


def test_a_number_too_large_for_the_model_is_422(serve: Serve, models: Models) -> None:
    rows = dataset("wine")[0]
    good = {"features": rows[0].tolist()}
    for name in ("wine", "wine_onnx"):
        server = serve(models(name))
        pid = server.pid
        for huge in (1e39, -1e39, 1e308):
            assert_problem(server.predict({"features": [huge, *rows[0][1:].tolist()]}), 422, "features")
            assert_problem(server.predict({"instances": [rows[0].tolist(), [*rows[0][:-1].tolist(), huge]]}), 422)
        assert_fine(server, good, pid)
