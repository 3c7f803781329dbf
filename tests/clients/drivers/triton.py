"""tritonclient's HTTP clients against a server whose address is the argument: whatever is not as it should be ends this."""

import asyncio
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ADDRESS = sys.argv[1]
FLOWERS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])

# By the datatype's name: two rows of three values, with those at the ends of its range.
TENSORS = {
    "BOOL": np.array([[True, False, True], [False, False, True]]),
    **{
        f"{kind}{bits}": np.array([[np.iinfo(name).min, 0, np.iinfo(name).max], [1, 2, 3]], dtype=name)
        for kind, stem in (("INT", "int"), ("UINT", "uint"))
        for bits in (8, 16, 32, 64)
        for name in (f"{stem}{bits}",)
    },
    **{
        datatype: np.array([[np.finfo(name).min, 0.1, np.finfo(name).max], [1, 2, 3]], dtype=name)
        for datatype, name in (("FP16", "float16"), ("FP32", "float32"), ("FP64", "float64"))
    },
    "BYTES": np.array([[b"", "Ålesund".encode(), b"x" * 300], [b"a", b"b", b"c"]], dtype=object),
}


def given(name: str, values: np.ndarray, *, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def expect(came: object, wanted: object) -> None:
    if came != wanted:
        raise SystemExit(f"{came!r} came, {wanted!r} was wanted")


def refused(call, words: str) -> None:
    try:
        call()
    except InferenceServerException as refusal:
        if words not in str(refusal):
            raise SystemExit(f"{words!r} is not in {refusal}") from None
    else:
        raise SystemExit(f"nothing was refused, {words!r} was wanted")


def as_sent(values: np.ndarray, datatype: str) -> list:
    """What the client makes of an answer: of BYTES in JSON texts, in binary form bytes."""
    return (
        [v.encode() if isinstance(v, str) else v for v in values.ravel().tolist()]
        if datatype == "BYTES"
        else values.ravel().tolist()
    )


def main() -> None:
    client = triton.InferenceServerClient(ADDRESS)
    expect(client.is_server_live(), True)
    expect(client.is_server_ready(), True)
    expect(client.is_model_ready("iris"), True)
    expect(client.is_model_ready("iris", "1"), True)
    expect(client.is_model_ready("nothing"), False)
    expect("binary_tensor_data" in client.get_server_metadata()["extensions"], True)
    told = client.get_model_metadata("iris")
    expect((told["name"], told["inputs"]), ("iris", [{"name": "input", "datatype": "FP64", "shape": [-1, 4]}]))
    index = {each["name"]: each["state"] for each in client.get_model_repository_index()}
    expect(index["iris"], "READY")

    for datatype, values in TENSORS.items():
        name = f"identity_{datatype}"
        for binary_in in (True, False):
            for binary_out in (True, False):
                asked = [triton.InferRequestedOutput("y", binary_data=binary_out)]
                answer = client.infer(name, [given("x", values, binary=binary_in)], outputs=asked, request_id="id-7")
                came = answer.as_numpy("y")
                if list(came.shape) != list(values.shape) or as_sent(came, datatype) != as_sent(values, datatype):
                    raise SystemExit(f"{datatype}, binary in {binary_in}, out {binary_out}: {came!r} for {values!r}")
                expect(answer.get_response()["id"], "id-7")

    flowers = [given("input", FLOWERS, binary=True)]
    expect(client.infer("iris", flowers).as_numpy("predict").tolist(), [0, 2])
    both = client.infer(
        "iris", flowers, outputs=[triton.InferRequestedOutput("predict_proba"), triton.InferRequestedOutput("predict")]
    )
    expect(both.as_numpy("predict_proba").shape, (2, 3))
    expect(client.infer("iris", [given("input", FLOWERS.astype("float32"), binary=False)]).as_numpy("predict").tolist(), [0, 2])
    labels = client.infer("string_labels", flowers).as_numpy("predict").tolist()
    expect(labels, [b"setosa", b"virginica"])
    expect(client.async_infer("iris", flowers).get_result().as_numpy("predict").tolist(), [0, 2])

    shared = triton.InferInput("input", [1, 4], "FP64")
    shared.set_shared_memory("region", 32)
    refused(lambda: client.infer("iris", [shared]), "shared memory is not supported")
    refused(lambda: client.register_system_shared_memory("region", "/key", 32), "not supported here: shared memory")
    refused(lambda: client.get_cuda_shared_memory_status(), "not supported here: shared memory")
    refused(lambda: client.load_model("iris"), "not supported here: loading and unloading")
    refused(lambda: client.get_inference_statistics("iris"), "not supported here: statistics")
    refused(lambda: client.infer("nothing", flowers), "there is no model 'nothing' here")
    refused(lambda: client.infer("iris", [given("input", FLOWERS[:, :3], binary=True)]), "expected [-1, 4]")
    client.close()
    asyncio.run(on_a_loop())
    print("as expected")


async def on_a_loop() -> None:
    async with aio.InferenceServerClient(ADDRESS) as client:
        expect(await client.is_server_ready(), True)
        for binary in (True, False):
            answers = await asyncio.gather(*(client.infer("iris", [given("input", FLOWERS, binary=binary)]) for _ in range(20)))
            expect([answer.as_numpy("predict").tolist() for answer in answers], [[0, 2]] * 20)


if __name__ == "__main__":
    main()
