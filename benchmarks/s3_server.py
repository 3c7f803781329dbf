"""A store for measuring: GET with ranges, HEAD and listings as S3 has them, sent by sendfile, so that clients are the limit.

`python -m benchmarks.s3_server` prints its port and serves until its standard input ends. The bucket `bench` holds what is
asked for: `large/BYTES/model.onnx` is an object of so many bytes, `small/COUNT/` a prefix with so many objects of 10 kB.
"""

import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

BLOCK_BYTES: Final = 64 * 1024 * 1024
SMALL_BYTES: Final = 10_000
TAG: Final = '"0123456789abcdef"'


class Handler(BaseHTTPRequestHandler):
    """One connection. An object is one block of random bytes, again and again."""

    protocol_version = "HTTP/1.1"
    block: int

    def do_HEAD(self) -> None:
        """An object's size and ETag."""
        self._head(200, self._size())

    def do_GET(self) -> None:
        """A listing, or bytes of an object."""
        if "list-type=2" in self.path:
            self._list()
            return
        size = self._size()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2] or size - 1)) if asked else (0, size - 1)
        self._head(206 if asked else 200, end - start + 1, f"bytes {start}-{end}/{size}" if asked else "")
        self.wfile.flush()
        at, left = start, end - start + 1
        while left:
            offset = at % BLOCK_BYTES
            sent = os.sendfile(self.connection.fileno(), self.block, offset, min(left, BLOCK_BYTES - offset))
            at, left = at + sent, left - sent

    def _size(self) -> int:
        large = re.match(r"/bench/large/(\d+)/", self.path)
        return int(large[1]) if large else SMALL_BYTES

    def _head(self, status: int, length: int, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", TAG)
        self.send_header("Accept-Ranges", "bytes")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def _list(self) -> None:
        prefix = re.search(r"prefix=small%2F(\d+)%2F", self.path)
        folder, count = (prefix[1], int(prefix[1])) if prefix else ("", 0)
        objects = "".join(
            f"<Contents><Key>small/{folder}/{number}.onnx</Key><Size>{SMALL_BYTES}</Size><ETag>{TAG}</ETag></Contents>"
            for number in range(count)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>".encode()
        self._head(200, len(body))
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until standard input ends."""
    Handler.block = os.memfd_create("block")
    os.write(Handler.block, os.urandom(BLOCK_BYTES))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
