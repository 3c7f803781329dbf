"""boto3's sagemaker-runtime against a server whose address is the argument, by a proxy that asks as SageMaker's front does."""

import io
import json
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import numpy as np
from botocore.config import Config
from botocore.exceptions import ClientError

SERVER = sys.argv[1]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


class Front(BaseHTTPRequestHandler):
    """`/endpoints/NAME/invocations` becomes `/invocations` of the container."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kept = {name: self.headers[name] for name in ("Content-Type", "Accept") if self.headers[name]}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(f"http://{SERVER}/invocations", body, kept))
        except urllib.error.HTTPError as refusal:
            answer = refusal
        content = answer.read()
        self.send_response(answer.status)
        for name, value in (("Content-Type", answer.headers["Content-Type"]), ("Content-Length", str(len(content)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def expect(came: object, wanted: object) -> None:
    if came != wanted:
        raise SystemExit(f"{came!r} came, {wanted!r} was wanted")


def main() -> None:
    front = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    client = boto3.client(
        "sagemaker-runtime",
        region_name="eu-west-1",
        endpoint_url=f"http://127.0.0.1:{front.server_port}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}),
    )

    def invoke(body: bytes | str, kind: str, accept: str | None = None) -> tuple[str, bytes]:
        options = {"Accept": accept} if accept else {}
        answer = client.invoke_endpoint(EndpointName="churn", Body=body, ContentType=kind, **options)
        return answer["ContentType"].partition(";")[0], answer["Body"].read()

    expect(invoke(json.dumps(ROWS), "application/json"), ("application/json", b"[0,2]"))
    expect(invoke(json.dumps({"instances": ROWS}), "application/json"), ("application/json", b'{"predictions":[0,2]}'))
    expect(invoke("5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n", "text/csv", "text/csv"), ("text/csv", b"0\n2\n"))
    file = io.BytesIO()
    np.save(file, np.array(ROWS))
    kind, content = invoke(file.getvalue(), "application/x-npy", "application/x-npy")
    expect((kind, np.load(io.BytesIO(content)).tolist()), ("application/x-npy", [0, 2]))
    try:
        invoke("[[1]]", "application/json")
    except ClientError as refusal:
        expect(refusal.response["ResponseMetadata"]["HTTPStatusCode"], 400)
    else:
        raise SystemExit("a row that is too short was not refused")
    ping = urllib.request.urlopen(f"http://{SERVER}/ping")
    expect((ping.status, ping.read()), (200, b""))
    front.shutdown()
    print("as expected")


if __name__ == "__main__":
    main()
