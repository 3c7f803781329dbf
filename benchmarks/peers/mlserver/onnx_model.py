"""An ONNX model in MLServer, as its documentation's page on custom runtimes has it: it brings none of its own."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxModel(MLModel):  # type: ignore[misc]  # the peer's package is not installed where types are checked
    async def load(self) -> bool:
        file = await get_model_uri(self.settings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # it has one core
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensors = {each.name: self.decode(each, default_codec=NumpyCodec) for each in payload.inputs}
        names = [each.name for each in self._session.get_outputs()]
        outputs = [
            NumpyCodec.encode_output(name, value) for name, value in zip(names, self._session.run(names, tensors), strict=True)
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
