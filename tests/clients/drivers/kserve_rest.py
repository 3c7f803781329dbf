"""The kserve package's REST client, V1 and V2, against a server whose address is the argument."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ADDRESS = sys.argv[1]
FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


def expect(came: object, wanted: object) -> None:
    if came != wanted:
        raise SystemExit(f"{came!r} came, {wanted!r} was wanted")


def infer_request(values: np.ndarray, *, binary: bool, model: str = "iris") -> InferRequest:
    tensor = InferInput("input", list(values.shape), "FP64" if values.dtype == np.float64 else "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="id-7")


async def main() -> None:
    v2 = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    expect(await v2.is_server_live(ADDRESS), True)
    expect(await v2.is_server_ready(ADDRESS), True)
    expect(await v2.is_model_ready(ADDRESS, "iris"), True)
    for dtype in (np.float64, np.float32):
        for binary in (True, False):
            answer = await v2.infer(ADDRESS, infer_request(np.array(FLOWERS, dtype), binary=binary), model_name="iris")
            expect(answer.id, "id-7")
            (output,) = answer.outputs
            expect((output.name, output.shape, output.as_numpy().tolist()), ("predict", [2], [0, 2]))
    asked = infer_request(np.array(FLOWERS), binary=True)
    asked.request_outputs = [RequestedOutput("predict_proba", {"binary_data": True}), RequestedOutput("predict")]
    answer = await v2.infer(ADDRESS, asked, model_name="iris")
    expect([output.name for output in answer.outputs], ["predict_proba", "predict"])
    expect(answer.outputs[0].as_numpy().argmax(axis=1).tolist(), [0, 2])
    labels = await v2.infer(ADDRESS, infer_request(np.array(FLOWERS), binary=False, model="labels"), model_name="labels")
    expect(list(labels.outputs[0].data), ["setosa", "virginica"])
    await v2.close()

    v1 = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    expect(await v1.is_server_live(ADDRESS), True)
    expect(await v1.is_model_ready(ADDRESS, "iris"), True)
    expect(await v1.infer(ADDRESS, {"instances": FLOWERS}, model_name="iris"), {"predictions": [0, 2]})
    try:
        await v1.infer(ADDRESS, {"instances": [[1, 2]]}, model_name="iris")
    except httpx.HTTPStatusError as refusal:
        if "instances[0] has 2 values, expected 4" not in str(refusal):
            raise SystemExit(f"it said {refusal}") from None
    else:
        raise SystemExit("rows that are too short were not refused")
    await v1.close()
    print("as expected")


if __name__ == "__main__":
    asyncio.run(main())
