"""What `ml-runtime bench` computes: the histogram, answers cut out of bytes, the search for a rate, advice, the report."""

import argparse
import json
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.bench import command, options, page, search, table, target, where
from runtime.bench.answers import Cutter, NotHttp, closes
from runtime.bench.histogram import Histogram
from runtime.bench.load import Outcome
from runtime.bench.table import Report, Run
from runtime.bench.target import BadTarget, Server
from runtime.bench.where import Where

CHANCE = np.random.default_rng(0)


# --- histogram --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "latencies",
    [
        CHANCE.exponential(0.01, 20_000),
        CHANCE.lognormal(-5, 2, 20_000),
        np.full(10, 0.25),
        np.array([0.0, 1e-6, 2.047e-3, 2.048e-3, 3600]),
    ],
    ids=["exponential", "lognormal", "the same", "at the buckets' ends"],
)
def test_percentiles_have_three_digits(latencies: Any) -> None:
    made = Histogram()
    for part in np.array_split(latencies, 7):
        made.record(part.tolist())
    assert made.count == len(latencies)
    for percent in (0, 10, 50, 90, 99, 99.9, 100):
        below = max(1, math.ceil(Fraction(str(percent)) * len(latencies) / 100))
        exact_ms = float(np.sort(latencies)[below - 1]) * 1e3
        assert made.percentile_ms(percent) == pytest.approx(exact_ms, rel=1e-3, abs=1e-3)
    assert made.mean_ms == pytest.approx(latencies.mean() * 1e3)
    values = [ms for _, ms in made.curve()]
    assert values == sorted(values)


def test_a_percentile_is_not_the_next_one_by_rounding() -> None:
    made = Histogram()
    made.record([0.001] * 999 + [1.0])
    # 999 of 1,000 did not exceed it, though 99.9 / 100 * 1000 is a little more than 999.
    assert made.percentile_ms(99.9) == 1.0


def test_nothing_measured() -> None:
    assert (Histogram().percentile_ms(99), Histogram().mean_ms) == (0.0, 0.0)


# --- answers ----------------------------------------------------------------------------------------------------------

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 11\r\n\r\nab\r\n\r\ncdefg"
CHUNKED = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nab\r\nc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(("answer", "status"), [(PLAIN, 200), (CHUNKED, 503), (EMPTY, 204)], ids=["plain", "chunked", "empty"])
def test_an_answer_in_pieces(answer: bytes, status: int) -> None:
    for step in (1, 2, 3, 7, len(answer)):
        cutter = Cutter()
        for _ in range(2):  # the second one on the same connection
            pieces = [answer[at : at + step] for at in range(0, len(answer), step)]
            found = [cutter.feed(piece) for piece in pieces]
            assert found[:-1] == [None] * (len(pieces) - 1)
            assert found[-1] is not None
            assert found[-1][:2] == (status, len(answer))
            assert closes(found[-1][2]) == (answer is EMPTY)


@pytest.mark.parametrize(
    "wrong",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"x" * 70_000,
        PLAIN + b"x",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_answer(wrong: bytes) -> None:
    with pytest.raises(NotHttp):
        Cutter().feed(wrong)


# --- search -----------------------------------------------------------------------------------------------------------


def outcome(rate: float, latency_s: float, errors: int = 0, seconds: float = 1.0, late_s: float = 0.0) -> Outcome:
    """Of a run of so many seconds, whose last answer came so much later."""
    made = Outcome(duration_s=seconds + late_s, errors=Counter({"timeout": errors} if errors else {}))
    made.due_per_s = rate + errors / seconds
    made.answered = int(rate * seconds)
    made.latency.record([latency_s] * max(made.answered, 1))
    return made


@pytest.mark.parametrize("capacity", [3.0, 40.0, 51.0, 700.0, 25_000.0])
def test_the_highest_rate_is_found(capacity: float) -> None:
    tried = []

    def measure(rate: float) -> Outcome:
        tried.append(rate)
        return outcome(rate, 0.01 if rate <= capacity else 1.0, seconds=10 if rate > 1000 else 100)

    found = search.highest(search.Target(99, 50), measure)
    assert found is not None
    assert capacity / 1.09 < found[0] <= capacity
    assert len(set(tried)) <= 16


def test_a_rate_is_missed_only_if_it_is_missed_twice() -> None:
    seen: set[float] = set()

    def measure(rate: float) -> Outcome:
        hiccup = rate not in seen
        seen.add(rate)
        return outcome(rate, 1.0 if hiccup or rate > 1000 else 0.01, seconds=100)

    found = search.highest(search.Target(99, 50), measure)
    assert found is not None
    assert found[0] > 900


def test_no_rate_is_good_enough() -> None:
    assert search.highest(search.Target(99, 50), lambda rate: outcome(rate, 1.0)) is None


def test_a_rate_that_is_not_kept_up_with_is_not_met() -> None:
    limit = search.Target(99, 50)
    assert limit.met(outcome(100, 0.01, seconds=10))
    assert limit.met(outcome(100, 0.01, seconds=10, late_s=0.4))
    assert not limit.met(outcome(100, 0.01, seconds=10, late_s=0.6))
    assert not limit.met(Outcome(duration_s=10))


def test_an_error_is_beyond_every_limit() -> None:
    nothing_lost, some_lost = outcome(1000, 0.01), outcome(991, 0.01, errors=9)
    assert search.Target(99, 50).met(some_lost)
    assert not search.Target(99.9, 50).met(some_lost)
    assert search.Target(99.9, 50).met(nothing_lost)
    assert not search.Target(99, 50).met(outcome(980, 0.01, errors=20))
    # Nine errors and one slow answer of a thousand are the one per cent that is left, one more is too much.
    some_lost.latency.record([1.0])
    assert search.Target(99, 50).met(some_lost)
    some_lost.latency.record([1.0] * 10)
    assert not search.Target(99, 50).met(some_lost)


@pytest.mark.parametrize(
    ("text", "percent", "limit_ms"), [("p99=50ms", 99, 50), ("p99.9=1.5s", 99.9, 1500), ("p50 = 2ms", 50, 2)]
)
def test_a_limit_is_read(text: str, percent: float, limit_ms: float) -> None:
    assert search.Target.parse(text) == search.Target(percent, limit_ms)


@pytest.mark.parametrize("text", ["p99", "99=5ms", "p99=5", "p99=0ms", "p990=5ms", ""])
def test_a_limit_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="such as p99=50ms"):
        search.Target.parse(text)


# --- where the time went ----------------------------------------------------------------------------------------------


def test_what_a_run_did_to_the_server() -> None:
    before = {
        "ml_batch_rows_sum": 10.0,
        "ml_batch_rows_count": 5.0,
        "ml_busy_seconds_total": 9.0,
        "ml_busy_seconds_total loop": 1.0,
        "ml_busy_seconds_total lanes": 8.0,
        "ml_rejected_total queue_full": 2.0,
    }
    after = {
        "ml_batch_rows_sum": 130.0,
        "ml_batch_rows_count": 25.0,
        "ml_busy_seconds_total": 21.0,
        "ml_busy_seconds_total loop": 11.0,
        "ml_busy_seconds_total lanes": 10.0,
        "ml_workers ready": 2.0,
        "ml_rejected_total queue_full": 9.0,
    }
    made = outcome(100, 0.004)
    head = b"HTTP/1.1 200 OK\r\nserver-timing: decode;dur=0.100, queue;dur=1.000, infer;dur=2.000, encode;dur=0.100\r\n"
    made.timings = [head, head.replace(b"1.000", b"0.000"), b"HTTP/1.1 200 OK\r\n"]
    found = where.between(before, after, 10.0, made)
    assert (found.batch_rows, found.busy_share, found.rejected) == (6.0, 0.5, {"queue_full": 7.0})
    assert found.parts_ms == pytest.approx({"decode": 0.1, "queue": 0.5, "infer": 2.0, "encode": 0.1})
    assert found.outside_ms == pytest.approx(4.0 - 2.7, abs=0.01)


def test_a_server_that_did_not_tell_its_metrics_afterwards() -> None:
    found = where.between({"ml_batch_rows_sum": 10.0, "ml_batch_rows_count": 5.0}, {}, 10.0, outcome(100, 0.004))
    assert (found.batch_rows, found.busy_share, found.rejected) == (None, None, {})


def parts(decode: float = 0, queue: float = 0, infer: float = 0, encode: float = 0) -> dict[str, float]:
    return {"decode": decode, "queue": queue, "infer": infer, "encode": encode}


@pytest.mark.parametrize(
    ("found", "cpu", "words"),
    [
        (Where(), 0.1, "Nothing stands out"),
        (Where(), 0.97, "97% of a CPU"),
        (Where(rejected={"queue_full": 7.0}), 0.1, "7 queue_full"),
        (Where(busy_share=0.95), 0.1, "busy 95%"),
        (Where(parts_ms=parts(queue=8, infer=2)), 0.1, "waited 8.0 of 10.0 ms for the batch"),
        (Where(parts_ms=parts(queue=8, infer=2), batch_rows=250.0), 0.1, "larger MAX_BATCH_ROWS than 256"),
        (Where(parts_ms=parts(decode=8, infer=2)), 0.1, "binary form"),
    ],
)
def test_advice(found: Where, cpu: float, words: str) -> None:
    made = outcome(100, 0.01)
    made.cpu_share = cpu
    assert words in " ".join(where.advice(found, made, 256))


def test_where_nothing_was_answered_the_errors_are_what_there_is_to_say() -> None:
    assert where.advice(Where(), Outcome(errors=Counter({"connect: refused": 9})), None) == [
        "No request was answered with 2xx: the errors above say why; the server's log may say more."
    ]


def test_a_busy_server_that_keeps_up_takes_more() -> None:
    busy = Where(busy_share=0.95)
    rate = outcome(100, 0.01)
    rate.lag.record([0.0] * 100)
    assert "busy 95% of the time, and kept up" in " ".join(where.advice(busy, rate, None))
    late = outcome(100, 0.01, late_s=0.5)
    late.lag.record([0.0] * 100)
    for full in (late, outcome(100, 0.01)):  # one that falls behind, and a closed loop
        assert "about what one replica takes" in " ".join(where.advice(busy, full, None))


@pytest.mark.parametrize(("late_s", "blamed"), [(0.001, False), (0.004, True)])
def test_what_a_timer_takes_is_not_the_generators_fault(late_s: float, blamed: bool) -> None:
    made = outcome(100, 0.0015)
    made.lag.record([late_s] * 100)
    assert any("too little CPU" in sentence for sentence in where.advice(Where(), made, None)) is blamed


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, ""),
        ("localhost:9000/models/churn/", "localhost", 9000, "/models/churn"),
        ("https://example.org", "example.org", 443, ""),
        ("http://[::1]:8080", "::1", 8080, ""),
    ],
)
def test_where_a_server_is(url: str, host: str, port: int, prefix: str) -> None:
    server = Server.at(url)
    assert (server.host, server.port, server.prefix, server.tls is not None) == (host, port, prefix, url.startswith("https"))


@pytest.mark.parametrize("url", ["", "ftp://host", "http://host:port", "http://host:99999", "http://"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(BadTarget):
        Server.at(url)


def test_bodies_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"features": [1]}\n\n{"features": [2]}\n')
    made = target.of_file(Server.at("http://h:1"), file, "/predict", 1, {"Authorization": "Bearer x"})
    assert len(made.requests) == 2
    head, _, body = made.requests[1].partition(b"\r\n\r\n")
    assert body == b'{"features": [2]}'
    for line in (b"POST /predict HTTP/1.1", b"Host: h:1", b"Content-Length: 17", b"Authorization: Bearer x"):
        assert line in head.split(b"\r\n")
    for name, words in (("nothing", "cannot be read"), ("empty.json", "is empty")):
        (tmp_path / "empty.json").touch()
        with pytest.raises(BadTarget, match=words):
            target.of_file(Server.at("http://h:1"), tmp_path / name, "/predict", 1, {})


# --- the report -------------------------------------------------------------------------------------------------------


def a_report() -> Report:
    runs = []
    for rate, latency in ((100.0, 0.002), (200.0, 0.004)):
        made = outcome(rate, latency, errors=1)
        made.refused.record([0.003])
        runs.append(Run(rate, None, made, Where(parts(0.1, 0.2, 1.0, 0.1), 0.6, 3.5, 0.4)))
    runs.append(Run(None, 8, outcome(300, 0.01), Where()))
    return Report("http://h:1", "POST /predict <b>", {"rows": 1}, runs, runs[1], ["Do & this."], "p99 of at most 5 ms", 200.0)


def test_the_report_in_words() -> None:
    said = table.text(a_report())
    for words in (
        "100/s",
        "8 connections",
        "At 200/s a mean of 4.00 ms",
        "Errors at 200/s: 1 x timeout; p99 of the answers among them 3.00 ms",
        "Within a p99 of at most 5 ms: 200 requests/s",
        "- Do & this.",
        "1",
    ):
        assert words in said
    widths = {len(line) for line in said.splitlines()[2:6]}
    assert len(widths) == 1


def test_the_report_as_json() -> None:
    document = json.loads(json.dumps(table.document(a_report())))
    assert document["best_per_s"] == 200.0
    first = document["runs"][0]
    assert (first["answered"], first["errors"], first["server"]["batch_rows"]) == (100, {"timeout": 1}, 3.5)
    assert first["latency_ms"]["p99"] == pytest.approx(2.0, rel=1e-3)


def test_the_report_as_a_page_of_its_own() -> None:
    made = page.html(a_report())
    assert made.count("<svg") == 3
    assert made.count("<polyline") == 5
    assert "&lt;b&gt;" in made
    assert "Do &amp; this." in made
    for what in ("<script", "src=", "href=", "url("):
        assert what not in made


# --- options ----------------------------------------------------------------------------------------------------------


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_to(parser.add_subparsers())
    return parser.parse_args(["bench", "http://h", *words])


def test_options() -> None:
    assert (parse("--duration", "3s").duration, parse("--rate", "0.5").rate, parse().rows) == (3.0, 0.5, None)


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--rate", "x"),
        ("--rows", "0"),
        ("--duration", "100000"),
        ("--rate", "1", "--sweep"),
    ],
)
def test_options_that_are_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(*words)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--path", "/other"], "--path does nothing beside anything but --data"),
        (["--data", "x.json", "--binary"], "--binary does nothing beside --data"),
        (["--data", "x.json", "--model", "m", "--protocol", "v2"], "--model and --protocol do nothing"),
        (["--connections", "4", "--poisson"], "--poisson does nothing beside --connections"),
    ],
)
def test_options_that_would_do_nothing(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(parse(*words)) == 2
    assert said in capsys.readouterr().err
