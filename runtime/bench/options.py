"""The options of `ml-runtime bench`. Standard library only: every command reads them."""

import argparse
import math
from pathlib import Path
from typing import Any, Final

DEFAULT_LIMIT: Final = "p99=100ms"
MOST_REQUESTS: Final = 50_000_000
_MOST_S: Final = 3600.0


def add_to(commands: Any) -> None:
    """Add the command and its options."""
    made = commands.add_parser(
        "bench",
        help="measure how much a server takes within a latency target",
        description="Measure a server of ours, or any that speaks the Open Inference Protocol V2: the highest rate within a "
        "latency target (the default), one rate, a sweep of rates, or the peak of a closed loop. It says where the time went "
        "and what to set. Run it on another machine than the server's, or on CPUs of its own.",
    )
    made.add_argument("url", help="http://host:port of the server, with the prefix that a proxy needs")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--find-limit", metavar="p99=50ms", help=f"search the highest rate that meets it ({DEFAULT_LIMIT})")
    how.add_argument("--rate", type=_positive, help="requests a second, which leave on schedule whatever the answers do")
    how.add_argument("--connections", type=_whole, help="a closed loop: so many connections, each sends when it has its answer")
    how.add_argument("--sweep", action="store_true", help="latency at rates up to a little more than the peak")
    made.add_argument("--poisson", action="store_true", help="requests arrive at random, at the rate, not evenly")
    made.add_argument("--duration", type=_seconds, help="seconds of each run (10; 5 for each of several)")
    made.add_argument("--warm-up", type=_seconds, default=1.0, help="seconds before it, which are not counted (1)")
    made.add_argument("--requests", type=_whole, help="end a run after so many requests")
    made.add_argument("--rows", type=_whole, help="rows of each request (1)")
    made.add_argument(
        "--protocol", choices=("auto", "predict", "v2"), default="auto", help="ours, or the Open Inference Protocol"
    )
    made.add_argument("--binary", action="store_true", help="tensors as bytes and not as JSON (v2)")
    made.add_argument("--model", default="", help="which model, where the server has several")
    made.add_argument("--data", type=Path, help="a file with the body to send: .json, .csv, .npy, or .jsonl with one a line")
    made.add_argument("--path", help="where --data goes (/predict)")
    made.add_argument("--header", action="append", default=[], metavar="NAME: VALUE", help="a header of every request")
    made.add_argument("--timeout", type=_seconds, default=10.0, help="seconds after which an answer counts as an error (10)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON; - is standard output")
    made.add_argument("--html", type=Path, metavar="FILE", help="write it as a page of its own, with plots")


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0")
    return value


def _seconds(text: str) -> float:
    value = _positive(text.removesuffix("s"))
    if value > _MOST_S:
        raise argparse.ArgumentTypeError(f"{text}: expected at most {_MOST_S:,.0f} seconds")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if not 0 < value <= MOST_REQUESTS:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1 on")
    return value
