"""KServe's Python server with a scikit-learn or an ONNX model: `server.py MODEL_FILE --model_name=... --http_port=...`.

KServe's own sklearnserver is not on PyPI, and it has no server for ONNX: these are models as its documentation's page on
custom models has them, with the package's own requests and responses. `predict` is no coroutine function, so it runs on
the event loop, as in KServe's sklearnserver. KServe's batcher is another container, not part of the package.
"""

import argparse
from pathlib import Path
from typing import Any

import joblib
import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.utils.utils import from_np_dtype, generate_uuid


class FileModel(Model):  # type: ignore[misc]  # the peer's package is not installed where types are checked
    def __init__(self, name: str, file: Path) -> None:
        super().__init__(name)
        self._file = file
        self.load()

    def outputs(self, request: InferRequest) -> dict[str, Any]:
        raise NotImplementedError

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:  # noqa: ARG002
        outputs = []
        for name, value in self.outputs(payload).items():
            output = InferOutput(name=name, shape=list(value.shape), datatype=from_np_dtype(value.dtype))
            output.set_data_from_numpy(value, binary_data=bool(payload.use_binary_outputs))
            outputs.append(output)
        return InferResponse(
            response_id=payload.id or generate_uuid(),
            model_name=self.name,
            infer_outputs=outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


class SklearnModel(FileModel):
    def load(self) -> bool:
        self._model = joblib.load(self._file)
        self.ready = True
        return self.ready

    def outputs(self, request: InferRequest) -> dict[str, Any]:
        # A table comes as one tensor a column.
        rows = request.as_dataframe() if len(request.inputs) > 1 else request.inputs[0].as_numpy()
        return {"predict": self._model.predict(rows), "predict_proba": self._model.predict_proba(rows)}


class OnnxModel(FileModel):
    def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # it has one core
        self._session = onnxruntime.InferenceSession(self._file, options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_outputs()]
        self.ready = True
        return self.ready

    def outputs(self, request: InferRequest) -> dict[str, Any]:
        tensors = {each.name: each.as_numpy() for each in request.inputs}
        return dict(zip(self._names, self._session.run(self._names, tensors), strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("file", type=Path)
    options, _ = parser.parse_known_args()
    kind = OnnxModel if options.file.suffix == ".onnx" else SklearnModel
    ModelServer().start([kind(options.model_name, options.file)])
