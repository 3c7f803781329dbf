"""KServe's V1 and TensorFlow Serving's REST, which share `/v1/models/{name}:predict`.

`instances` are rows and answered as `predictions`; `inputs` are whole tensors and answered as `outputs`, as TensorFlow Serving
does: KServe's users send instances. `signature_name` and `parameters` are taken and mean nothing here.
"""

import base64
import binascii
import itertools
from typing import Any, Final

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse

from runtime.dialects import NAMED, Call, Dialect, Encoded, Request, Serving, add_probe, json_text, predictions, v1_schema
from runtime.entry import Answer
from runtime.errors import BadRequest, InputMismatch, did_you_mean, kind_of
from runtime.repository import Listed, Repository
from runtime.tensors import Signature, TensorSpec

TAG: Final = "KServe V1 and TensorFlow Serving"
_KEYS: Final = ("instances", "inputs")
_QUOTED: Final = json_text.in_quotes(*_KEYS)
_HINT: Final = 'expected an object with "instances", an array of rows, or "inputs", whole tensors by name'
_PREDICT: Final = ":predict"
# Looking for what each of a client's keys was meant to be takes 14 µs.
_KEYS_COMPARED: Final = 8


def decode(request: Request, signature: Signature) -> Call:
    """From the body to checked tensors; raises BadRequest or InputMismatch."""
    body: Any = request.body
    return of_document(json_text.parse(body, _HINT), body, signature)


def of_document(document: Any, body: bytes | bytearray, signature: Signature) -> Call:
    """From what the body was parsed to; raises BadRequest or InputMismatch."""
    try:
        return _decode(document, body, signature)
    except InputMismatch:
        json_text.refuse_too_deep(document)
        raise


def _decode(document: Any, body: bytes | bytearray, signature: Signature) -> Call:
    if type(document) is not dict:
        raise InputMismatch(f"the body is {kind_of(document)}, {_HINT}")
    given = [key for key in _KEYS if key in document]
    if len(given) != 1:
        came = "both" if given else "neither"
        near = [did_you_mean(key, _KEYS) for key in itertools.islice(document, _KEYS_COMPARED) if not given]
        hint = next((text for text in near if text.endswith("?")), _HINT)
        raise InputMismatch(f'the body has {came} of "instances" and "inputs": {hint}')
    json_text.refuse_double_keys(_QUOTED, body)
    values = document[given[0]]
    if given[0] == "inputs":
        return predictions.of_inputs(values, "inputs", signature)
    if signature.inputs[0].datatype == "BYTES" and type(values) is list:
        values = [_text(each, at) for at, each in enumerate(values)]
    return predictions.of_instances(values, "instances", signature)


def _text(value: Any, at: int) -> Any:
    """TensorFlow Serving's way to send bytes in JSON: {"b64": "..."}."""
    if type(value) is not dict or value.keys() != {"b64"}:
        return value
    try:
        return base64.b64decode(value["b64"], validate=True).decode()
    except (binascii.Error, TypeError, ValueError):
        raise BadRequest(f'instances[{at}]: "b64" should be the base64 of a text in UTF-8') from None


def encode(call: Call, answer: Answer, signature: Signature) -> Encoded:
    """Headers and bytes of the answer; raises NotRepresentable."""
    if call.form is NAMED:
        return json_text.AS_JSON, json_text.written({"outputs": predictions.by_name(call, answer, signature)})
    return json_text.AS_JSON, json_text.written({"predictions": predictions.by_row(call, answer, signature)})


# --- the other paths --------------------------------------------------------------------------------------------------

_STATES: Final = {"ready": "AVAILABLE", "loading": "LOADING", "failed": "END"}
_DTYPES: Final = {
    "BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64",
    "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64",
    "FP16": "DT_HALF", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE", "BYTES": "DT_STRING",
}  # fmt: skip


def routes(serving: Serving) -> APIRouter:
    """The models' list, their state in both protocols' words at once, and TensorFlow Serving's metadata."""
    router, repository = APIRouter(tags=[TAG]), serving.repository
    if not serving.settings.azureml_model_dir:  # there it is Azure ML's

        async def live() -> JSONResponse:
            """200 while the event loop turns, as KServe's clients ask."""
            return JSONResponse({"status": "alive"})

        add_probe(router, "/", live, responses=v1_schema.answers(v1_schema.LIVE))

    @router.get("/v1/models", responses=v1_schema.answers(v1_schema.MODELS))
    async def models() -> JSONResponse:
        """The names of all models."""
        return JSONResponse({"models": list(dict.fromkeys(each.name for each in repository.listed))})

    @router.get("/v1/models/{name}", responses=v1_schema.answers(v1_schema.STATE, 404, 405, s503=v1_schema.STATE))
    async def model(name: str) -> JSONResponse:
        """Whether a model answers, as KServe and as TensorFlow Serving say it."""
        _refuse_get(name)
        return _state(repository.find(name), [each for each in repository.listed if each.name == name])

    @router.get(
        "/v1/models/{name}/versions/{version}", responses=v1_schema.answers(v1_schema.STATE, 404, 405, s503=v1_schema.STATE)
    )
    async def version_of_model(name: str, version: str) -> JSONResponse:
        """Whether a version of a model answers."""
        _refuse_get(version)
        listed = repository.find(name, version)
        return _state(listed, [listed])

    @router.get("/v1/models/{name}/metadata", responses=v1_schema.answers(v1_schema.METADATA, 404, 503))
    async def metadata(name: str) -> JSONResponse:
        """Inputs and outputs in TensorFlow Serving's form."""
        return JSONResponse(_metadata(repository, name, None))

    @router.get("/v1/models/{name}/versions/{version}/metadata", responses=v1_schema.answers(v1_schema.METADATA, 404, 503))
    async def version_metadata(name: str, version: str) -> JSONResponse:
        """Inputs and outputs of a version in TensorFlow Serving's form."""
        return JSONResponse(_metadata(repository, name, version))

    return router


def _refuse_get(name: str) -> None:
    """The path that predicts is one of these, too, by its form."""
    if name.endswith(_PREDICT):
        raise HTTPException(405, headers={"Allow": "POST"})


def _state(listed: Listed, versions: list[Listed]) -> JSONResponse:
    ready = listed.model is not None
    told = [
        {
            "version": each.version,
            "state": _STATES[each.state],
            "status": {"error_code": "UNKNOWN" if each.reason else "OK", "error_message": each.reason},
        }
        for each in versions
    ]
    document = {"name": listed.name, "ready": ready, "model_version_status": told}
    return JSONResponse(document, 200 if ready else 503)


def _metadata(repository: Repository, name: str, version: str | None) -> dict[str, Any]:
    model = repository.get(name, version)
    signature = model.signature
    shown = set(predictions.outputs_of(signature))
    definition = {
        "inputs": {spec.name: _tensor(spec) for spec in _inputs_of(signature)},
        "outputs": {spec.name: _tensor(spec) for spec in signature.outputs if spec.name in shown},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
        "metadata": {"signature_def": {"signature_def": {"serving_default": definition}}},
    }


def _inputs_of(signature: Signature) -> list[TensorSpec]:
    """A table whose columns differ is one input a column."""
    if signature.mixed:
        return [TensorSpec(column.name, column.datatype, (-1,)) for column in signature.columns]
    return list(signature.inputs)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    sizes = [{"size": str(size), "name": ""} for size in spec.shape]
    return {"dtype": _DTYPES[spec.datatype], "tensor_shape": {"dim": sizes, "unknown_rank": False}, "name": spec.name}


DIALECT: Final = Dialect(
    name="v1",
    tag=TAG,
    paths=("/v1/models/{name}:predict", "/v1/models/{name}/versions/{version}:predict"),
    decode=decode,
    encode=encode,
    refusals=predictions.REFUSALS,
    openapi=v1_schema.operation,
    routes=routes,
    root="/v1",
)
