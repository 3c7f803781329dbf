"""What is asked of which server: requests made from the model's own metadata, with varied rows, or from a file.

Ours says in its OpenAPI document what a request that works looks like; any server that speaks the Open Inference Protocol V2
says names, datatypes and shapes. Both are asked by plain GETs before the load begins.
"""

import http.client
import itertools
import json
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from runtime.tensors import DATATYPES

VARIANTS: Final = 1000
# All variants together, so that large tensors do not fill the memory.
_MOST_BYTES: Final = 64 * 2**20
_ASK_S: Final = 10.0
_LENGTH: Final = "Inference-Header-Content-Length"
_TYPES: Final[Mapping[str, str]] = {".json": "application/json", ".csv": "text/csv", ".npy": "application/x-npy"}


class BadTarget(Exception):
    """The server cannot be asked, or nothing can be made of what it says; the text says what to do."""


class _OnlyTensors(BadTarget):
    """The model takes no rows."""


@dataclass(frozen=True)
class Server:
    """Where a server is."""

    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None

    @classmethod
    def at(cls, url: str) -> "Server":
        """From `http://host:port`, with a path before ours or without; raises BadTarget."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            raise BadTarget(f"{url}: the port is no number from 1 to 65535") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadTarget(f"{url}: expected http://host:port or https://host")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/"), tls)

    def get(self, path: str, headers: Mapping[str, str] | None = None, timeout_s: float = _ASK_S) -> tuple[int, bytes]:
        """Status and body; raises BadTarget if nobody answers."""
        kind = http.client.HTTPConnection if self.tls is None else http.client.HTTPSConnection
        options: dict[str, Any] = {} if self.tls is None else {"context": self.tls}
        connection = kind(self.host, self.port, timeout=timeout_s, **options)
        try:
            connection.request("GET", self.prefix + path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BadTarget(
                f"nobody answers at {self.host}:{self.port}: {reason}. Is the server up, and is this its port?"
            ) from error
        finally:
            connection.close()

    def request(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """A whole POST request."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        every = {"Host": f"{host}:{self.port}", "User-Agent": "ml-runtime-bench", **headers, "Content-Length": str(len(body))}
        lines = [f"POST {self.prefix}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in every.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass(frozen=True)
class Target:
    """A server, the requests to send in turn, and in words what they are; `rows` is None where nobody said how many."""

    server: Server
    requests: Sequence[bytes]
    path: str
    protocol: str
    rows: int | None
    note: str = ""


def of_model(server: Server, protocol: str, model: str, rows: int, *, binary: bool, headers: Mapping[str, str]) -> Target:
    """Requests for a model, by default the server's own or only one; `protocol` is auto, predict or v2. Raises BadTarget."""
    ask = _of_openapi if protocol == "predict" else _of_v2
    if protocol == "auto":
        status, _ = server.get("/models", headers)
        if status == 200 and not binary:
            with suppress(_OnlyTensors):
                return _of_openapi(server, model, rows, binary=binary, headers=headers)
    return ask(server, model, rows, binary=binary, headers=headers)


def of_file(server: Server, file: Path, path: str, rows: int | None, headers: Mapping[str, str]) -> Target:
    """A file's content as the body; of a `.jsonl` each line is one. `rows` is what its user says. Raises BadTarget."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadTarget(f"{file} cannot be read: {error.strerror}") from error
    bodies = [line for line in content.splitlines() if line.strip()] if file.suffix == ".jsonl" else [content]
    if not bodies or not bodies[0]:
        raise BadTarget(f"{file} is empty")
    kind = {"Content-Type": _TYPES.get(file.suffix, "application/json")}
    requests = [server.request(path, body, kind | dict(headers)) for body in bodies]
    note = f"the body of {file.name}" if len(bodies) == 1 else f"{len(bodies):,} bodies of {file.name}"
    return Target(server, requests, path, "file", rows, note)


# --- ours -------------------------------------------------------------------------------------------------------------


def _of_openapi(server: Server, model: str, rows: int, *, binary: bool, headers: Mapping[str, str]) -> Target:
    if binary:
        raise BadTarget("--binary is the Open Inference Protocol's: add --protocol v2, or leave --protocol out")
    status, body = server.get("/openapi.json", headers)
    if status != 200:
        raise BadTarget(f"GET /openapi.json answered {status}; is this an ml-runtime? For other servers: --protocol v2")
    path = f"/models/{model}/predict" if model else "/predict"
    try:
        content = json.loads(body)["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        # What stands under each form's key: `features` one row, `instances` rows.
        forms = {key: value for each in content["examples"].values() for key, value in each["value"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadTarget(
            f"the server's document says nothing of POST {path} with an example: name a model of GET /models with --model, "
            "or give a body with --data"
        ) from None
    if "instances" not in forms:
        raise _OnlyTensors(f"POST {path} takes no rows, only tensors: give a body with --data, or use --protocol v2")
    varied = _varied(forms["instances"][0], VARIANTS)
    if rows == 1 and "features" in forms:
        documents = iter([{"features": row} for row in varied])
    else:
        wrapped = varied * (rows // VARIANTS + 2)
        documents = ({"instances": wrapped[at : at + rows]} for at in range(VARIANTS))
    kind = {"Content-Type": "application/json"}
    made = _requests(server, path, ((_as_json(document), kind) for document in documents), headers)
    different = len(set(made))
    note = f"{different:,} different requests"
    if different == 1:
        note = "always the same request: the model's example holds no number that could be moved; --data gives others"
    return Target(server, made, path, "predict", rows, note)


def _varied(row: Any, count: int) -> list[Any]:
    """Rows like this one: each number that is no whole one is moved by up to a tenth; the rest may be a category, and stays."""
    chance = np.random.default_rng(0)
    return [_moved(row, lambda: float(chance.uniform(-1, 1))) for _ in range(count)]


def _moved(value: Any, draw: Callable[[], float]) -> Any:
    if isinstance(value, dict):
        return {key: _moved(each, draw) for key, each in value.items()}
    if isinstance(value, list):
        return [_moved(each, draw) for each in value]
    if type(value) is not float:
        return value
    return float(f"{value * (1 + draw() / 10) if value else draw():.4g}")


# --- the Open Inference Protocol --------------------------------------------------------------------------------------


def _of_v2(server: Server, model: str, rows: int, *, binary: bool, headers: Mapping[str, str]) -> Target:
    name = model or _only_model(server, headers)
    status, body = server.get(f"/v2/models/{name}", headers)
    if status != 200:
        raise BadTarget(f"GET /v2/models/{name} answered {status}: name the model with --model")
    try:
        inputs = [(each["name"], each["datatype"], list(each["shape"])) for each in json.loads(body)["inputs"]]
    except (ValueError, KeyError, TypeError):
        raise BadTarget(
            f"GET /v2/models/{name} says no inputs; give a body with --data and --path /v2/models/{name}/infer"
        ) from None
    if not inputs:
        raise BadTarget(f"model {name} says no inputs; give a body with --data and --path /v2/models/{name}/infer")
    chance = np.random.default_rng(0)

    def bodies() -> Iterator[tuple[bytes, Mapping[str, str]]]:
        while True:
            tensors = [_tensor(*each, rows, chance) for each in inputs]
            yield _as_binary(tensors) if binary else (_as_json({"inputs": [told for told, _ in tensors]}), {})

    kind = {"Content-Type": "application/octet-stream" if binary else "application/json"}
    path = f"/v2/models/{name}/infer"
    made = _requests(server, path, bodies(), kind | dict(headers))
    fixed = [shape[0] for _, _, shape in inputs if shape and shape[0] > 0]
    told = fixed[0] if fixed else rows
    return Target(server, made, path, "v2, binary" if binary else "v2", told, f"{len(set(made)):,} different requests")


def max_batch_rows(server: Server, model: str, headers: Mapping[str, str]) -> int | None:
    """How many rows the server lets share a batch, of a model or its own one; None where it does not say so."""
    with suppress(BadTarget, ValueError, LookupError, TypeError):
        for each in _listed(server, headers):
            if each["name"] == model or (not model and each["default_model"]):
                return int(each["batching"]["max_rows"])
    return None


def _only_model(server: Server, headers: Mapping[str, str]) -> str:
    with suppress(ValueError, LookupError, TypeError):
        listed = _listed(server, headers)
        names = [each["name"] for each in listed if each["default_model"]] or [each["name"] for each in listed]
        return str(names[0])
    raise BadTarget("name the model with --model: this server does not say which it has")


def _listed(server: Server, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a server of ours says of each version of its models; nothing where there is no such page."""
    status, body = server.get("/models", headers)
    listed: list[dict[str, Any]] = json.loads(body)["models"] if status == 200 else []
    return listed


def _tensor(
    name: str, datatype: str, shape: Sequence[int], rows: int, chance: np.random.Generator
) -> tuple[dict[str, Any], bytes]:
    """What a request says of an input, with its values, and their bytes. A first axis of any length has so many rows."""
    sizes = [rows if at == 0 and size < 0 else max(size, 1) for at, size in enumerate(shape)]
    if datatype == "BYTES":
        texts = [f"text {number}" for number in chance.integers(0, 1000, int(np.prod(sizes)))]
        raw = b"".join(len(text).to_bytes(4, "little") + text.encode() for text in texts)
        return {"name": name, "shape": sizes, "datatype": datatype, "data": texts}, raw
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        raise BadTarget(f"input {name} has the datatype {datatype}, of which no values are made here; give a body with --data")
    if dtype.kind == "f":
        values = chance.random(sizes).round(4).astype(dtype)
    else:
        values = chance.integers(0, 2 if dtype.kind == "b" else 10, sizes).astype(dtype)
    flat = values.ravel().tolist()
    data = [round(value, 4) for value in flat] if dtype.kind == "f" else flat
    return {"name": name, "shape": sizes, "datatype": datatype, "data": data}, values.tobytes()


def _as_binary(tensors: Sequence[tuple[dict[str, Any], bytes]]) -> tuple[bytes, dict[str, str]]:
    told = [
        {**{key: value for key, value in each.items() if key != "data"}, "parameters": {"binary_data_size": len(raw)}}
        for each, raw in tensors
    ]
    head = _as_json({"inputs": told, "parameters": {"binary_data_output": True}})
    return head + b"".join(raw for _, raw in tensors), {_LENGTH: str(len(head))}


def _as_json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _requests(
    server: Server, path: str, bodies: Iterable[tuple[bytes, Mapping[str, str]]], headers: Mapping[str, str]
) -> list[bytes]:
    """A request of each body and its own headers, until they are VARIANTS or fill _MOST_BYTES."""
    made: list[bytes] = []
    size = 0
    for body, own in itertools.islice(bodies, VARIANTS):
        made.append(server.request(path, body, {**own, **headers}))
        size += len(made[-1])
        if size > _MOST_BYTES:
            break
    return made
