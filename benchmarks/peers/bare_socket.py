"""The floor for an image: a loop that receives a request from a socket, calls the model and answers; no server at all.

One connection, one request at a time, one fixed place for the tensor: what is left of its time without the model is what the
kernel, a copy and waking up cost on this machine. `bare_socket.py MODEL_FILE PORT`.
"""

import socket
import sys

import numpy as np
import onnxruntime

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"


def main(file: str, port: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (tensor,) = session.get_inputs()
    size = 4 * int(np.prod(tensor.shape))
    buffer = memoryview(bytearray(2 * size))
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                while received := connection.recv_into(buffer):
                    if bytes(buffer[:4]) == b"POST":
                        head_end = bytes(buffer[:2048]).index(b"\r\n\r\n") + 4
                        length = int(bytes(buffer[:head_end]).lower().split(b"content-length: ")[-1].split(b"\r\n")[0])
                        while received < head_end + length:
                            came = connection.recv_into(buffer[received:])
                            if not came:
                                return
                            received += came
                        image = np.frombuffer(bytes(buffer[received - size : received]), np.float32).reshape(tensor.shape)
                        answer = session.run(None, {tensor.name: image})[0].tobytes()
                        connection.sendall(ANSWER % (len(answer), answer))
                    else:
                        connection.sendall(ANSWER % (2, b"ok"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
