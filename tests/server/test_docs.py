"""The page with all paths and the document behind it: the model's own schema, examples that work, no other host."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.conftest import Serve
from tests.models import IRIS_COLUMNS, Models
from tests.process import Server, assert_tells_nothing

PREDICT_PATHS = ("/predict", "/models/{name}/predict", "/models/{name}/versions/{version}/predict")


@pytest.fixture(scope="module", params=["iris", "columns", "wine_onnx", "add_sub", "mixed_columns_onnx", "transformer"])
def server(request: pytest.FixtureRequest, serve_module: Serve, models: Models) -> Server:
    return serve_module(models(request.param))


def resolve(document: dict[str, Any], node: Any) -> Any:
    """Follow the document's own references; every one must lead somewhere in it."""
    while isinstance(node, dict) and "$ref" in node:
        assert node["$ref"].startswith("#/"), node
        target: Any = document
        for part in node["$ref"][2:].split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def examples(document: dict[str, Any], path: str) -> list[Any]:
    """Every example of a path's request body."""
    content = resolve(document, document["paths"][path]["post"]["requestBody"])["content"]["application/json"]
    schema = resolve(document, content.get("schema", {}))
    found = [content["example"]] if "example" in content else []
    found += [resolve(document, example)["value"] for example in content.get("examples", {}).values()]
    found += [schema["example"]] if "example" in schema else []
    found += schema.get("examples", [])
    for part in schema.get("oneOf", []) + schema.get("anyOf", []):
        found += resolve(document, part).get("examples", [])
    return found


def walk(node: Any) -> Any:
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def test_the_document_is_whole(server: Server) -> None:
    response = server.get("/openapi.json")
    assert response.status_code == 200
    document = response.json()
    assert re.fullmatch(r"3\.\d+\.\d+", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]
    for path in (*PREDICT_PATHS, "/health", "/health/live", "/health/ready", "/metrics", "/models", "/models/{name}"):
        assert path in document["paths"], path
    for node in walk(document):
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            resolve(document, node)
    for path, item in document["paths"].items():
        parameters = re.findall(r"{(\w+)}", path)
        for operation in item.values():
            assert operation["responses"]
            named = {p["name"] for p in map(lambda p: resolve(document, p), operation.get("parameters", []))}  # noqa: C417
            assert set(parameters) <= named, path
    identifiers = [node["operationId"] for node in walk(document) if isinstance(node, dict) and "operationId" in node]
    assert len(identifiers) == len(set(identifiers))
    assert_tells_nothing(response.text)


def test_the_examples_work_when_posted_as_they_are(server: Server) -> None:
    document = server.get("/openapi.json").json()
    for path in PREDICT_PATHS:
        found = examples(document, path)
        assert found, path
        for example in found:
            response = server.post(path.format(name="model", version="1"), example)
            assert response.status_code == 200, (path, example, response.text)


def test_the_schema_is_the_models_own(serve: Serve, models: Models) -> None:
    text = serve(models("columns")).get("/openapi.json").text
    for name in IRIS_COLUMNS:
        assert name in text
    text = serve(models("add_sub")).get("/openapi.json").text
    for name in ("difference", '"a"', '"b"'):
        assert name in text


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(
        self,
        tag: str,  # noqa: ARG002 - as html.parser calls it
        attrs: list[tuple[str, str | None]],
    ) -> None:
        wanted = {"src", "href", "srcset", "data", "action"}
        self.found += [value for name, value in attrs if name in wanted and value]


def test_the_page_needs_no_other_host(serve: Serve, models: Models) -> None:
    for prefix in ("", "/models/churn"):
        server = serve(models("iris_onnx"), ROOT_PATH=prefix)
        page = server.get(f"{prefix}/docs")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "openapi.json" in page.text
        parser = _References()
        parser.feed(page.text)
        assert parser.found
        for reference in parser.found:
            assert not re.match(r"(https?:)?//", reference), reference
            if reference.startswith(("#", "data:")):
                continue
            file = server.get(reference if reference.startswith("/") else f"{prefix}/{reference}")
            assert file.status_code == 200, reference
            assert file.content
        assert not re.findall(r"https?://(?!127\.0\.0\.1)[\w.-]+", page.text)
        for url in re.findall(r"""url:\s*["']([^"']+)["']""", page.text):
            assert server.get(url if url.startswith("/") else f"{prefix}/{url}").status_code == 200
