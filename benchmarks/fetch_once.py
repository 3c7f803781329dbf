"""One measured download in a process of its own: `python -m benchmarks.fetch_once HOW KEY DIRECTORY`, a JSON line out.

`ours` is what a server does, from asking the store to a complete entry on the disk; `bare` is what boto3's users write. Both
are timed from a client that is there to bytes that are. Memory: resident before, and at its peak.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3

from runtime import checksums
from runtime.cache import Cache
from runtime.fetch import Fetch
from runtime.patience import Patience
from runtime.progress import Progress
from runtime.uri import parse


def ours(key: str, directory: Path) -> Callable[[], object]:
    """The fetch of the runtime."""
    fetch = Fetch(parse(f"s3://bench/{key}"), None, Cache(directory, 2**50, private=False), Progress())
    fetch._opened()  # its client, which a bare one has as well
    return lambda: fetch.run("always", Patience(time.monotonic() + 600, "600 s"))


def bare(key: str, directory: Path) -> Callable[[], object]:
    """boto3's own transfer of one object, or a loop over the objects in as many threads as ours has."""
    client = boto3.client("s3", config=boto3.session.Config(max_pool_connections=16))
    if not key.endswith("/"):
        return lambda: client.download_file("bench", key, str(directory / "model.onnx"))

    def one(found: dict[str, Any]) -> None:
        body = client.get_object(Bucket="bench", Key=found["Key"])["Body"].read()
        (directory / Path(found["Key"]).name).write_bytes(body)

    def loop() -> None:
        found = client.list_objects_v2(Bucket="bench", Prefix=key)["Contents"]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, found))

    return loop


def main() -> None:
    """Measure."""
    how, key, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    checksums.new("crc64nvme")  # the library, as both have botocore's
    step = {"ours": ours, "bare": bare}[how](key, directory)
    before = resident_bytes()
    began = time.perf_counter()
    step()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "idle_bytes": before, "peak_bytes": peak}))


def resident_bytes() -> int:
    """What this process holds now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


if __name__ == "__main__":
    main()
