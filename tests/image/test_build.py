"""docker-bake.hcl and the Dockerfile: what is built, from what, under which names, and what is built again after a change."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import Run
from tests.image.engine import MADE, Failed, docker, inspected, mounted, python, run_to_end
from tests.process import ROOT

CONTEXT = ("runtime", "images", "pyproject.toml", "README.md", "LICENSE", ".dockerignore", "docker-bake.hcl")
# What lies in a clone and must not travel: the engine would keep it, and a careless COPY would ship it.
FOREIGN = (
    ".env", "aws-credentials.json", ".git/config", "examples/iris/models/model.joblib", "model.onnx", "runtime/.env",
    "runtime/__pycache__/cli.cpython-313.pyc", "tests/image/secret.pem", ".venv/bin/python", "images/token.txt",
)  # fmt: skip


def plan(*targets: str, files: tuple[object, ...] = (), **variables: str) -> dict[str, Any]:
    """What `docker buildx bake --print` says of targets, with variables of the environment."""
    command = ["docker", "buildx", "bake", *(word for file in files for word in ("--file", str(file))), "--print", *targets]
    done = subprocess.run(
        ["env", *(f"{name}={value}" for name, value in variables.items()), *command],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cpu_image")
class TestPlan:
    def test_default(self) -> None:
        printed = plan()
        assert printed["group"]["default"]["targets"] == ["cpu", "cuda"]
        for device in ("cpu", "cuda"):
            target = printed["target"][device]
            assert target["args"] == {
                "BASE_IMAGE": "debian:trixie-slim", "PYTHON": "3.13", "DEVICE": device, "EXTRAS": "", "SKLEARN": "1.9",
            }  # fmt: skip
            version = printed["target"][device]["labels"]["org.opencontainers.image.version"]
            assert target["tags"] == [
                f"org/ml-runtime:{device}",
                f"org/ml-runtime:{version}-{device}",
                f"org/ml-runtime:{version}-{device}-py3.13-sklearn1.9",
            ]

    def test_the_versions_agree(self) -> None:
        from runtime import __version__

        assert plan()["target"]["cpu"]["labels"]["org.opencontainers.image.version"] == __version__

    def test_another_line_of_scikit_learn_has_a_tag_of_its_own_only(self) -> None:
        targets = plan("line", VERSION="2.0", REGISTRY="elsewhere/ml")["target"]
        assert {name: target["tags"] for name, target in targets.items() if "1-8" in name} == {
            "cpu-sklearn1-8": ["elsewhere/ml/ml-runtime:2.0-cpu-py3.13-sklearn1.8"],
            "cuda-sklearn1-8": ["elsewhere/ml/ml-runtime:2.0-cuda-py3.13-sklearn1.8"],
        }
        assert len(targets) == 4

    def test_variables(self) -> None:
        given = {"BASE_IMAGE": "python:3.11-slim", "PYTHON": "3.11", "EXTRAS": "convert boosters", "SOURCE": "somewhere"}
        target = plan("cpu", **given, REVISION="abc", CREATED="2026-01-01T00:00:00Z")["target"]["cpu"]
        assert target["args"].items() >= {"BASE_IMAGE": "python:3.11-slim", "EXTRAS": "convert boosters"}.items()
        assert target["tags"][0] == "org/ml-runtime:cpu-convert-boosters"
        assert target["tags"][-1].endswith("-cpu-py3.11-sklearn1.9-convert-boosters")
        labels = {name.removeprefix("org.opencontainers.image."): value for name, value in target["labels"].items()}
        assert labels.items() >= {
            "base.name": "python:3.11-slim", "source": "somewhere", "revision": "abc", "created": "2026-01-01T00:00:00Z",
        }.items()  # fmt: skip

    def test_release(self) -> None:
        targets = plan("release")["target"]
        for kind, output in (("push", "type=registry"), ("sbom", "type=local,dest=dist/sbom")):
            of_kind = [target for name, target in targets.items() if name.startswith(kind)]
            assert len(of_kind) == 4
            for target in of_kind:
                assert target["platforms"] == ["linux/amd64", "linux/arm64"]
                assert target["output"] == [output]
                assert target.get("attest", []) == (["type=sbom", "type=provenance,mode=max"] if kind == "push" else [])

    def test_metadata_action(self, tmp_path: Path) -> None:
        """The file that docker/metadata-action writes: its labels go before ours, its tags don't."""
        label = "org.opencontainers.image.version"
        hook = {"tags": ["x/y:z"], "labels": {label: "9", "theirs": "1"}, "args": {"DOCKER_META_VERSION": "9"}}
        file = tmp_path / "metadata.json"
        file.write_text(json.dumps({"target": {"docker-metadata-action": hook}}))
        target = plan("cpu", files=("docker-bake.hcl", file))["target"]["cpu"]
        assert (
            target["labels"].items() >= {label: "9", "theirs": "1", "org.opencontainers.image.licenses": "Apache-2.0"}.items()
        )
        assert target["tags"][0] == "org/ml-runtime:cpu"

    def test_downstream(self) -> None:
        assert plan("downstream")["target"]["downstream"]["contexts"] == {"org/ml-runtime:cpu": "target:cpu"}


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_labels_and_tags(image: str) -> None:
    found = inspected(image)
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in found["Config"]["Labels"].items()}
    assert labels["title"] == f"ml-runtime {image.rpartition(':')[2]}, scikit-learn 1.9"
    assert labels.keys() >= {"description", "version", "created", "licenses", "base.name"}
    assert f"{image.replace(':', ':' + labels['version'] + '-')}-py3.13-sklearn1.9" in found["RepoTags"]
    installed = python(image, "import sys, sklearn; print(*sys.version_info[:2], sklearn.__version__)")
    assert re.match(r"3 13 1\.9\.\d+", installed)


def test_the_example_of_two_lines(cpu_image: str, run: Run) -> None:
    """Trained in the image, built by the bake target upon it, and asked as its README says."""
    iris = ROOT / "examples" / "iris"
    (iris / "models").mkdir(exist_ok=True)
    options = (*mounted(iris, "/work", "rw"), "--user", "0", "--entrypoint", "python")
    assert "wrote models/model.joblib" in run_to_end(cpu_image, "/work/train.py", options=options)
    docker("buildx", "bake", "downstream")
    request = json.loads((iris / "request.json").read_text())
    answer = run("iris").http.post("/predict", json=request).json()
    shown = next(line for line in (iris / "README.md").read_text().splitlines() if line.startswith('{"prediction"'))
    assert answer["probability"] == pytest.approx(json.loads(shown)["probability"], rel=1e-6)


def test_the_older_line_of_scikit_learn(cpu_image: str, run: Run, readable: Path) -> None:
    """Its model is refused by the newer line, and served by its own, without a line more."""
    docker("buildx", "bake", "cpu-sklearn1-8")
    (older,) = plan("cpu-sklearn1-8")["target"]["cpu-sklearn1-8"]["tags"]
    train = "joblib.dump(LinearRegression().fit([[0], [1]], [0, 1]), '/made/model.joblib')"
    program = f"import joblib; from sklearn.linear_model import LinearRegression; {train}"
    python(older, program, mounted(readable, "/made", "rw"))
    with pytest.raises(Failed, match=r"made with scikit-learn 1\.8\.\d+, and here is 1\.9"):
        run_to_end(cpu_image, options=mounted(readable))
    assert run(older, models=readable).answer({"features": [2]})["prediction"] == pytest.approx(2)


@pytest.mark.parametrize("extras", ["convert", "boosters", "gcs", "azure"])
def test_extras(cpu_image: str, extras: str) -> None:
    docker("buildx", "bake", "cpu", "--set", f"cpu.args.EXTRAS={extras}", "--set", f"cpu.tags={MADE}:{extras}")
    modules = {
        "convert": "onnx, skl2onnx",
        "boosters": "lightgbm, xgboost",
        "gcs": "runtime.sources.gcs",
        "azure": "runtime.sources.azure",
    }[extras]
    assert python(f"{MADE}:{extras}", f"import {modules}; print('there')").strip() == "there"
    assert run_to_end(f"{MADE}:{extras}", "check", options=("--entrypoint", "pip")).strip() == "No broken requirements found."
    with pytest.raises(Failed, match="No module named"):
        python(cpu_image, f"import {modules}")


def test_an_unknown_extra_is_named(cpu_image: str) -> None:
    there = r"extra-azure\.txt extra-boosters\.txt extra-convert\.txt extra-gcs\.txt"
    with pytest.raises(Failed, match=f"EXTRAS: no extra torch; there are: {there}"):
        docker("buildx", "bake", "--progress", "plain", cpu_image.rpartition(":")[2], "--set", "*.args.EXTRAS=torch")


# --- what goes in -----------------------------------------------------------------------------------------------------


def clone(target: Path) -> Path:
    """What a build is made of, without what lies around here."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in CONTEXT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target / name, **({"ignore": ignore, "symlinks": True} if (ROOT / name).is_dir() else {}))
    return target


def test_the_context_holds_nothing_that_the_build_does_not_copy(cpu_image: str, tmp_path: Path) -> None:
    del cpu_image
    (tmp_path / "clone").mkdir()
    here = clone(tmp_path / "clone")
    for name in FOREIGN:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("secret")
    lines = "FROM scratch\nCOPY . /\n"
    output = f"type=local,dest={tmp_path / 'sent'}"
    docker("buildx", "build", "--file", "-", "--output", output, here, given=lines)
    sent = {str(file.relative_to(tmp_path / "sent")) for file in (tmp_path / "sent").rglob("*") if file.is_file()}
    assert sent >= {"pyproject.toml", "runtime/cli.py", "images/bin/ml-runtime", "images/requirements/cpu-sklearn1.9.txt"}
    assert not sent & set(FOREIGN)
    wanted = re.compile(r"runtime/.*(\.py|py\.typed)|runtime/docs/.*|images/.*|pyproject\.toml|README\.md|LICENSE")
    assert [name for name in sent if not wanted.fullmatch(name)] == []


def test_a_change_of_the_runtime_builds_only_the_last_layers(image: str, tmp_path: Path) -> None:
    here, device = clone(tmp_path), image.rpartition(":")[2]
    arguments = ("buildx", "bake", "--progress", "plain", device, "--set", f"{device}.tags={MADE}:rebuilt-{device}")
    docker(*arguments, cwd=here)
    with (here / "runtime" / "app.py").open("a") as file:
        file.write(f"# changed {tmp_path}\n")
    log = docker(*arguments, cwd=here)
    steps = dict(re.findall(r"^#(\d+) \[(\w+ +\d+/\d+\] .*)$", log, re.MULTILINE))
    cached = set(re.findall(r"^#(\d+) CACHED$", log, re.MULTILINE))
    assert len(cached & steps.keys()) > 10
    built = {step for number, step in steps.items() if number not in cached and not step.startswith("python ")}
    last = ("COPY runtime runtime", "RUN PIP_REQUIRE_HASHES=0", "COPY --from=code")
    for step, wanted in zip(sorted(built), last, strict=True):
        assert step.partition("] ")[2].startswith(wanted)
    layers = inspected(f"{MADE}:rebuilt-{device}")["RootFS"]["Layers"]
    assert layers[:-1] == inspected(image)["RootFS"]["Layers"][:-1]


def test_a_base_with_another_python_than_the_tag_says(cpu_image: str) -> None:
    del cpu_image
    with pytest.raises(Failed, match=r"PYTHON is 3\.12, and the base image has 3\.13"):
        docker("buildx", "bake", "--progress", "plain", "cpu", "--set", "cpu.args.PYTHON=3.12")


def test_without_a_target_a_build_makes_the_image_of_its_device(cuda_image: str) -> None:
    tag = f"{MADE}:no-target"
    docker("buildx", "build", "--file", "images/Dockerfile", "--build-arg", "DEVICE=cuda", "--tag", tag, ROOT)
    assert inspected(tag)["RootFS"]["Layers"] == inspected(cuda_image)["RootFS"]["Layers"]
