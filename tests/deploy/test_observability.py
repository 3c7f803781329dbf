"""Rules and dashboard: promtool's checks and cases, and every expression in a Prometheus that scrapes a real server."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import Serve
from tests.deploy.manifests import DEPLOY
from tests.deploy.tools import tool
from tests.models import FLOWER, Models
from tests.process import Server, eventually, free_port
from tests.server.lifecycle import reloads

DASHBOARD = json.loads((DEPLOY / "observability/dashboard.json").read_text())
RULES = yaml.safe_load((DEPLOY / "observability/prometheus-rule.yaml").read_text())["spec"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
START_S = 30.0
# Long enough for several scrapes and evaluations.
DATA_S = 60.0
INSIDE = {"$namespace": ".*", "$pod": ".*", "$model": ".*", "$__rate_interval": "10s"}


def queries() -> list[tuple[str, str]]:
    """Title and expression of everything that the dashboard draws, as Grafana fills it in."""
    found = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
    found += [(each["name"], each["expr"]) for each in DASHBOARD["annotations"]["list"]]
    return [(title, re.sub(r"\$\w+", lambda match: INSIDE[match[0]], expression)) for title, expression in found]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rule file that the page takes out of the operator's form."""
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(RULES))
    return file


def test_the_rules_are_rules(rules: Path) -> None:
    done = subprocess.run([tool("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(len(group['rules']) for group in RULES['groups'])} rules found" in done.stdout


def test_alerts_fire_where_they_should_and_nowhere_else(rules: Path) -> None:
    cases = shutil.copy(Path(__file__).with_name("alerts.yaml"), rules.parent)
    done = subprocess.run([tool("promtool"), "test", "rules", cases], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_alert_has_a_case() -> None:
    cases = Path(__file__).with_name("alerts.yaml").read_text()
    assert all(f'{{alertname="{rule["alert"]}"}}' in cases for rule in ALERTS)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert len(rule["annotations"]["summary"]) > 20
    assert len(rule["annotations"]["action"]) > 60


@pytest.fixture(scope="module")
def store(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server with a model: its address, and the file."""
    directory = tmp_path_factory.mktemp("store")
    model = Path(shutil.copy(models.file("iris_onnx"), directory))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{model.name}", model
    server.shutdown()
    thread.join()
    server.server_close()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def watched(serve_module: Serve, store: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server of two workers that has fetched its model."""
    address, _ = store
    return serve_module(None, MODEL_URI=address, MODEL_CACHE=tmp_path_factory.mktemp("cache"), WORKERS=2)


@pytest.fixture(scope="module")
def scraping(watched: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a Prometheus that scrapes the server every second and evaluates the rules."""
    home = tmp_path_factory.mktemp("prometheus")
    (home / "rules.yaml").write_text(yaml.safe_dump(RULES))
    target = {"targets": [f"127.0.0.1:{watched.port}"], "labels": {"namespace": "churn", "pod": "model-0"}}
    job = {"job_name": "pods", "scrape_interval": "1s", "static_configs": [target]}
    configuration = {"global": {"evaluation_interval": "1s"}, "rule_files": ["rules.yaml"], "scrape_configs": [job]}
    (home / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    options = [
        f"--storage.tsdb.path={home}/data",
        f"--config.file={home}/prometheus.yml",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([tool("prometheus"), *options], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:

            def ready() -> bool:
                assert process.poll() is None, (home / "log").read_text()[-2000:]
                with suppress(httpx.TransportError):
                    return client.get("/-/ready").status_code == 200
                return False

            eventually(ready, "Prometheus is ready", START_S, poll_s=0.1)
            load(watched, 1.0)
            seen = "ml_ready == 1 and on (pod) ml_busy_share and on (namespace) model:ml_requests:rate5m"
            eventually(lambda: evaluated(client, seen), "it has scraped and recorded", DATA_S, poll_s=0.2)
            yield client
    finally:
        process.terminate()
        process.wait(START_S)


def evaluated(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """The samples of an instant query."""
    answer = client.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def load(server: Server, seconds: float) -> None:
    """Good requests, bad ones, and one that is refused for its size."""
    until = time.monotonic() + seconds
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        while time.monotonic() < until:
            for body in ({"features": FLOWER}, {"instances": [FLOWER] * 3}, {"features": [1]}):
                client.post("/predict", json=body)
            client.post("/predict", content=b"{", headers={"Content-Type": "text/plain"})


def test_everything_that_is_drawn_and_recorded_has_data(
    watched: Server, store: tuple[str, Path], scraping: httpx.Client
) -> None:
    wanted = {expression: title for title, expression in queries()}
    wanted |= {rule["record"]: rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    left = set(wanted)
    # An increase is seen only of what was seen before it.
    eventually(lambda: evaluated(scraping, 'ml_reloads_total{outcome="ok"} == 0'), "Prometheus has scraped", DATA_S)
    os.utime(store[1], (1, 1))  # another revision
    watched.signal(signal.SIGHUP)
    eventually(lambda: reloads(watched, "ok") == 1, "the model was loaded again", DATA_S, poll_s=0.2)
    until = time.monotonic() + DATA_S
    while left and time.monotonic() < until:
        load(watched, 1.0)
        left = {expression for expression in left if not with_numbers(evaluated(scraping, expression))}
    assert not left, [(wanted[expression], expression) for expression in left]


def with_numbers(samples: list[dict[str, Any]]) -> bool:
    return bool(samples) and all(sample["value"][1] not in ("NaN", "+Inf", "-Inf") for sample in samples)


def test_what_is_recorded_is_true(watched: Server, scraping: httpx.Client) -> None:
    load(watched, 8.0)
    (share,) = evaluated(scraping, "ml_busy_share")
    assert share["metric"]["pod"] == "model-0"
    assert 0 < float(share["value"][1]) <= 1.05
    (errors,) = evaluated(scraping, "model:ml_errors:ratio5m")
    assert (errors["metric"]["model"], float(errors["value"][1])) == ("model", 0.0)


def test_alerts_can_be_evaluated_and_are_quiet(scraping: httpx.Client) -> None:
    for rule in ALERTS:
        assert evaluated(scraping, rule["expr"]) == [], rule["alert"]


def test_the_variables_of_the_dashboard_find_their_values(scraping: httpx.Client) -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        series = re.sub(r"\$\w+", lambda match: INSIDE[match[0]], series)
        assert all(label in sample["metric"] for sample in evaluated(scraping, series)), variable["name"]
        assert evaluated(scraping, series), variable["name"]
