"""Discovery: what is found, what is refused, and that each refusal says what came, what was expected and what to do."""

import hashlib
import io
import os
import pickle
import re
import socket
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from runtime.artifact import (
    Artifact,
    Candidate,
    check_fits,
    check_unchanged,
    digest,
    discover,
    find,
    version_order,
)
from runtime.errors import AmbiguousArtifact, ArtifactFault, BadArtifact, ModelNotThere, UnsafeLink

PICKLE = pickle.dumps({"weights": [0.1, 0.2, 0.3]})
MLMODEL = b"flavors: {sklearn: {pickled_model: model.pkl, serialization_format: pickle}}"


def skops_bytes() -> bytes:
    """As much of a .skops file as discovery reads."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", '{"protocol": 2, "_skops_version": "0.16.0"}')
    return buffer.getvalue()


SKOPS = skops_bytes()


def onnx_bytes(*locations: str) -> bytes:
    """An ONNX model; each location is one tensor whose data lies in that file."""
    tensors = []
    for number, location in enumerate(locations):
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensors.append(tensor)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:], tensors)
    model: bytes = helper.make_model(graph).SerializeToString()
    return model


def refusal(path: Path, error: type[ArtifactFault]) -> str:
    """The message with which `find` refuses `path`."""
    with pytest.raises(error) as caught:
        find(path)
    return str(caught.value)


# --- found ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.joblib", "iris.pkl", "Iris.PICKLE", "MODEL.JOBLIB", "with space é.pkl"])
def test_a_directory_with_one_pickle(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PICKLE)
    assert find(tmp_path) == Artifact(tmp_path / name, tmp_path, "sklearn", len(PICKLE), code=(tmp_path,))


@pytest.mark.parametrize("name", ["model.onnx", "m.ONNX"])
def test_a_directory_with_one_onnx_model(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(onnx_bytes())
    assert find(tmp_path) == Artifact(tmp_path / name, tmp_path, "onnx", len(onnx_bytes()), form="onnx", code=(tmp_path,))


def test_a_directory_with_a_skops_file(tmp_path: Path) -> None:
    (tmp_path / "m.skops").write_bytes(SKOPS)
    assert find(tmp_path) == Artifact(tmp_path / "m.skops", tmp_path, "sklearn", len(SKOPS), form="skops", code=(tmp_path,))


def test_a_file_by_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "a.joblib").write_bytes(PICKLE)
    (tmp_path / "b.joblib").write_bytes(PICKLE)
    found = find(tmp_path / "b.joblib")
    assert (found.path, found.root) == (tmp_path / "b.joblib", tmp_path)


def test_a_relative_path_stays_as_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.pkl").write_bytes(PICKLE)
    monkeypatch.chdir(tmp_path)
    assert find(Path("m.pkl")).path == Path("m.pkl")
    assert find(Path()) == Artifact(Path("m.pkl"), tmp_path, "sklearn", len(PICKLE), code=(Path(),))


def test_other_files_and_hidden_ones_are_no_candidates(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(PICKLE)
    for other in (
        "README.md",
        "requirements.txt",
        "train.csv",
        ".model.onnx",
        "..model.pkl",
        "joblib",
        "model.joblib.bak",
    ):
        (tmp_path / other).write_bytes(b"x")
    (tmp_path / "old.pkl").mkdir()
    assert find(tmp_path).path.name == "model.joblib"


# --- nothing there ----------------------------------------------------------------------------------------------------


def test_an_empty_directory(tmp_path: Path) -> None:
    message = refusal(tmp_path, ModelNotThere)
    assert f"no model in {tmp_path}, which holds nothing" in message
    for ending in (".joblib", ".pkl", ".pickle", ".onnx"):
        assert ending in message
    for remedy in ("COPY", "-v ", "MODEL_PATH"):
        assert remedy in message


def test_what_lay_there_is_listed_with_sizes(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"x" * 1536)
    (tmp_path / "one.txt").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert "README.md (1.5 KiB), data/, gone (a link to nothing), one.txt (1 byte), pipe (a FIFO), nor" in refusal(
        tmp_path, ModelNotThere
    )


def test_the_list_ends_after_20_names(tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"f{number:02}.txt").touch()
    message = refusal(tmp_path, ModelNotThere)
    assert "f19.txt (0 bytes), ... (25 in all)." in message
    assert "f20.txt" not in message


def test_a_missing_path_names_the_nearest_parent_and_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(PICKLE)
    message = refusal(tmp_path / "modles" / "v1" / "model.joblib", ModelNotThere)
    assert f"{tmp_path / 'modles' / 'v1' / 'model.joblib'} does not exist" in message
    assert f"the nearest directory that does is {tmp_path}, which holds model.joblib" in message
    assert "MODEL_PATH" in message


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").write_bytes(PICKLE)
    assert "Not a directory" in refusal(tmp_path / "model.joblib" / "model.joblib", ModelNotThere)


def test_a_name_too_long_for_a_file_system(tmp_path: Path) -> None:
    assert "name too long" in refusal(tmp_path / ("m" * 300 + ".pkl"), ModelNotThere)


def test_a_path_that_is_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").symlink_to("..data/model.joblib")
    assert "is a link to ..data/model.joblib, which leads to nothing" in refusal(tmp_path / "model.joblib", ModelNotThere)


def test_hidden_directories_are_no_model_repository(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "model.pkl").write_bytes(PICKLE)
    assert "repositories" not in refusal(tmp_path, ModelNotThere)


def test_names_that_are_not_printable_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "evil\n2026 info forged\x1b[31m").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    message = refusal(tmp_path, ModelNotThere)
    assert message.isprintable()
    assert r"'evil\n2026 info forged\x1b[31m'" in message


@pytest.fixture
def as_anybody() -> Iterator[Path]:
    """A directory of its own, and a process without root's right to read everything."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65_534)
        try:
            yield Path(name)
        finally:
            if is_root:
                os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o400], ids=["closed", "may be listed, but not entered"])
def test_a_directory_that_may_not_be_read_says_uid_and_mode(as_anybody: Path, mode: int) -> None:
    models = as_anybody / "models"
    models.mkdir()
    (models / "model.joblib").write_bytes(PICKLE)
    models.chmod(mode)
    for path in (models, models / "model.joblib"):
        message = refusal(path, ArtifactFault)
        assert f"permission denied, this process has uid {os.geteuid()} and gid {os.getegid()}" in message
        assert f"{models} has the mode {mode:04o}, uid {os.geteuid()}" in message
        assert f"chmod -R a+rX {models}" in message


def test_a_file_that_may_not_be_read_says_uid_and_mode(as_anybody: Path) -> None:
    model = as_anybody / "model.joblib"
    model.write_bytes(PICKLE)
    model.chmod(0o200)
    message = refusal(as_anybody, BadArtifact)
    assert f"{model} cannot be read: permission denied, this process has uid {os.geteuid()}" in message
    assert f"{model} has the mode 0200" in message


# --- more than one ----------------------------------------------------------------------------------------------------


def test_two_candidates_are_both_named_and_none_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "b.onnx").write_bytes(onnx_bytes())
    (tmp_path / "a.joblib").write_bytes(PICKLE)
    message = refusal(tmp_path, AmbiguousArtifact)
    assert "2 models" in message
    assert "a.joblib (" in message
    assert "b.onnx (" in message
    assert f"MODEL_PATH={tmp_path / 'a.joblib'}" in message


def test_a_broken_candidate_counts(tmp_path: Path) -> None:
    (tmp_path / "a.joblib").write_bytes(PICKLE)
    (tmp_path / "b.pkl").write_bytes(b"")
    assert "b.pkl (0 bytes)" in refusal(tmp_path, AmbiguousArtifact)


# --- name and content -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "model.onnx",
            PICKLE,
            r"is a pickle of protocol 4, expected an ONNX model by its name; .*rename it to model\.joblib",
        ),
        ("m.joblib", onnx_bytes(), r"is an ONNX model, expected a pickle by its name; .*rename it to m\.onnx"),
        ("m.pkl", onnx_bytes(), r"is an ONNX model, expected a pickle"),
        ("m.skops", PICKLE, r"is a pickle of protocol 4, expected a \.skops file by its name; .*rename it to m\.joblib"),
        ("m.pkl", SKOPS, r"is a \.skops file, expected a pickle by its name; .*rename it to m\.skops"),
        ("model.bin", PICKLE, r"expected a name that ends in \.joblib, .*rename it to model\.joblib"),
        ("model", onnx_bytes(), r"expected a name that ends in .*rename it to model\.onnx"),
    ],
)
def test_the_name_never_decides_how_bytes_are_read(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert re.search(said, refusal(tmp_path / name, BadArtifact))


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").touch()
    message = refusal(tmp_path, BadArtifact)
    assert f"{tmp_path / 'model.joblib'} is empty: 0 bytes, expected a scikit-learn model" in message
    assert "copy it again" in message


# --- links and what is no file ----------------------------------------------------------------------------------------


def kubernetes(tmp_path: Path, **files: bytes) -> Path:
    """A volume as Kubernetes lays it: what is seen links to `..data`, which links to the directory of one revision."""
    mount, revision = tmp_path / "mount", "..2026_01_01_00_00_00.123"
    (mount / revision).mkdir(parents=True)
    (mount / "..data").symlink_to(revision)
    for name, content in files.items():
        name = name.replace("_", ".")
        (mount / revision / name).write_bytes(content)
        (mount / name).symlink_to(f"..data/{name}")
    return mount


def test_the_links_of_a_kubernetes_volume_work(tmp_path: Path) -> None:
    mount = kubernetes(tmp_path, model_joblib=PICKLE, README_md=b"x")
    assert find(mount) == Artifact(mount / "model.joblib", mount, "sklearn", len(PICKLE), code=(mount,))
    assert find(mount / "model.joblib") == find(mount)
    assert digest(find(mount)) == hashlib.sha256(PICKLE).hexdigest()


def test_external_data_in_a_kubernetes_volume_works(tmp_path: Path) -> None:
    mount = kubernetes(tmp_path, model_onnx=onnx_bytes("w.bin"), w_bin=b"0" * 16)
    assert find(mount).beside == (mount / "w.bin",)


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "model.joblib").write_bytes(PICKLE)
    (tmp_path / "models").symlink_to(real)
    for path in (tmp_path / "models", tmp_path / "models" / "model.joblib"):
        assert find(path) == Artifact(
            tmp_path / "models" / "model.joblib", real, "sklearn", len(PICKLE), code=(tmp_path / "models",)
        )


def test_a_link_inside_of_the_root_works(tmp_path: Path) -> None:
    (tmp_path / "v3").mkdir()
    (tmp_path / "v3" / "model.joblib").write_bytes(PICKLE)
    (tmp_path / "latest.joblib").symlink_to("v3/model.joblib")
    assert find(tmp_path).path.name == "latest.joblib"


@pytest.mark.parametrize("way", ["file", "absolute", "directory", "twice", "sibling"])
def test_a_link_out_of_the_root_is_refused(tmp_path: Path, way: str) -> None:
    root, outside = tmp_path / "models", tmp_path / "models-secret"
    root.mkdir()
    outside.mkdir()
    (outside / "model.joblib").write_bytes(PICKLE)
    link = root / "model.joblib"
    match way:
        case "file":
            link.symlink_to("../models-secret/model.joblib")
        case "absolute":
            link.symlink_to(outside / "model.joblib")
        case "directory":
            (root / "..data").symlink_to(outside)
            link.symlink_to("..data/model.joblib")
        case "twice":
            (root / "hop").symlink_to("../models-secret/model.joblib")
            link.symlink_to("hop")
        case "sibling":  # a directory whose name only starts like the root's
            link.symlink_to("../models-secret/../models-secret/model.joblib")
    for path in (root, link):
        message = refusal(path, UnsafeLink)
        assert f"{link} is a link to {outside / 'model.joblib'}, outside of the model's directory {root}" in message
        assert "copy the file itself" in message


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.joblib").symlink_to("..data/model.joblib")
    assert "is a link to ..data/model.joblib, which leads to nothing" in refusal(tmp_path, BadArtifact)


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").symlink_to("b")
    (tmp_path / "b").symlink_to("a.pkl")
    assert "leads in a circle" in refusal(tmp_path, BadArtifact)
    assert "leads in a circle" in refusal(tmp_path / "a.pkl", ModelNotThere)


def test_a_fifo_is_refused_without_opening_it(tmp_path: Path) -> None:
    fifo = tmp_path / "model.joblib"
    os.mkfifo(fifo)
    # With somebody at the other end, opening it would not hang but read what lies there.
    other_end = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    os.write(other_end, PICKLE * 200)
    try:
        for path in (tmp_path, fifo):
            assert "is a FIFO, expected a regular file; it was not opened" in refusal(path, BadArtifact)
    finally:
        os.close(other_end)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("model.pkl")
        assert "is a socket" in refusal(tmp_path, BadArtifact)


def test_a_device_is_refused() -> None:
    assert "is a character device" in refusal(Path("/dev/zero"), BadArtifact)


# --- external data of an ONNX model -----------------------------------------------------------------------------------


def test_external_data_beside_the_model_belongs_to_it(tmp_path: Path) -> None:
    model = onnx_bytes("w/b.bin", "a.bin", "a.bin")
    (tmp_path / "w").mkdir()
    (tmp_path / "model.onnx").write_bytes(model)
    (tmp_path / "a.bin").write_bytes(b"a" * 16)
    (tmp_path / "w" / "b.bin").write_bytes(b"b" * 32)
    found = find(tmp_path)
    assert found.beside == (tmp_path / "a.bin", tmp_path / "w" / "b.bin")
    assert found.size_bytes == len(model) + 48
    assert digest(found) == hashlib.sha256(model + b"a" * 16 + b"b" * 32).hexdigest()


def test_the_models_that_onnx_itself_saves_with_external_data(tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [512], b"\0" * 2048, raw=True)
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [512])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [value], [tensor])
    place = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), place, save_as_external_data=True, location="w.data", size_threshold=0)
    assert find(tmp_path).beside == (tmp_path / "w.data",)


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/hostname", "w/../../secret", "w/../w.bin", "..", "w.bin\0x", "link", "w/link", "out/secret"],
)
def test_external_data_that_may_lie_outside_is_refused(tmp_path: Path, location: str) -> None:
    root = tmp_path / "models"
    (root / "w").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"s" * 16)
    (root / "w.bin").write_bytes(b"w" * 16)
    (root / "link").symlink_to("../secret")
    (root / "w" / "link").symlink_to(tmp_path / "secret")
    (root / "out").symlink_to(tmp_path)
    (root / "model.onnx").write_bytes(onnx_bytes("w.bin", location))
    for path in (root, root / "model.onnx"):
        message = refusal(path, UnsafeLink)
        assert f"{root / 'model.onnx'} keeps weights in {location!a}, which" in message
        assert "outside of the model's directory" in message


def test_external_data_by_an_absolute_path_is_refused_even_inside(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"w" * 16)
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(str(tmp_path / "w.bin")))
    assert "external data must be named by a path below it" in refusal(tmp_path, UnsafeLink)


def test_external_data_that_is_a_hard_link_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"s" * 16)
    (root / "w.bin").hardlink_to(tmp_path / "secret")
    (root / "model.onnx").write_bytes(onnx_bytes("w.bin"))
    message = refusal(root, UnsafeLink)
    assert "keeps weights in 'w.bin', which is a hard link: the file has 2 names" in message
    assert "copy the file itself there" in message
    (tmp_path / "secret").unlink()
    assert find(root).beside == (root / "w.bin",)


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_bytes("w.bin"))
    assert "keeps weights in 'w.bin', which is not there; copy the file itself there" in refusal(tmp_path, BadArtifact)


@pytest.mark.parametrize("location", ["pipe", "w", "", "*/_ORT_MEM_ADDR_/*", "x" * 300])
def test_external_data_that_is_no_regular_file(tmp_path: Path, location: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "w").mkdir()
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(location))
    assert "keeps weights in" in refusal(tmp_path, BadArtifact)


# --- the revision -----------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    content = pickle.dumps(bytes(3 * 1024 * 1024))
    (tmp_path / "model.pkl").write_bytes(content)
    assert digest(find(tmp_path)) == hashlib.sha256(content).hexdigest()


def test_the_digest_of_a_file_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PICKLE)
    found = find(tmp_path)
    found.path.unlink()
    with pytest.raises(BadArtifact, match="cannot be read: No such file"):
        digest(found)


def test_looking_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(PICKLE)
    (tmp_path / "model.pkl").chmod(stat.S_IRUSR)
    find(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pkl"]
    assert (tmp_path / "model.pkl").read_bytes() == PICKLE


# --- larger than the memory, or changed meanwhile ---------------------------------------------------------------------


def test_what_is_larger_than_the_memory_is_refused_with_both_figures(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_bytes("w.bin"))
    with (tmp_path / "w.bin").open("wb") as weights:
        weights.truncate(5 * 1024**3)  # takes no room
    found = find(tmp_path)
    check_fits(found, 6 * 1024**3)
    with pytest.raises(BadArtifact) as caught:
        check_fits(found, 512 * 1024**2)
    assert "model.onnx with the weights beside it, 1 file, takes 5.0 GiB on disk" in str(caught.value)
    assert "only 512.0 MiB of memory" in str(caught.value)
    assert "docker run --memory" in str(caught.value)


@pytest.mark.parametrize("how", ["written to", "same size", "replaced", "gone", "weights", "manifest"])
def test_what_changes_meanwhile_is_told(tmp_path: Path, how: str) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_bytes("w.bin"))
    (tmp_path / "w.bin").write_bytes(b"w" * 16)
    (tmp_path / "model.json").write_text("{}")
    found = find(tmp_path)
    check_unchanged(found)
    said = "was written to"
    match how:
        case "written to":
            with model.open("ab") as file:
                file.write(b"more")
        case "same size":
            os.utime(model, ns=(0, 0))
        case "replaced":
            (tmp_path / "new").write_bytes(model.read_bytes())
            (tmp_path / "new").rename(model)
            said = "was replaced by another file"
        case "gone":
            model.unlink()
            said = "is gone"
        case "weights":
            (tmp_path / "w.bin").write_bytes(b"w" * 17)
            said = "was written to: it had 16 bytes, now it has 17 bytes"
        case "manifest":
            (tmp_path / "model.json").write_text('{"name": "other"}')
    with pytest.raises(BadArtifact) as caught:
        check_unchanged(found)
    assert said in str(caught.value)
    assert "write to another name and rename it" in str(caught.value)


# --- discovery --------------------------------------------------------------------------------------------------------


def lay(root: Path, **contents: bytes | str) -> Path:
    """Files below `root`; `__` in a name stands for a slash, `_` for a dot."""
    for name, content in contents.items():
        place = root / name.replace("__", "/").replace("_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def names(candidates: tuple[Candidate, ...]) -> list[str]:
    return [f"{each.name}/{each.version}" + ("" if isinstance(each.found, Artifact) else "!") for each in candidates]


def fault(candidates: tuple[Candidate, ...]) -> str:
    """The reason of the only one that cannot be served."""
    (bad,) = (each.found for each in candidates if isinstance(each.found, ArtifactFault))
    return str(bad)


def test_one_model_is_called_as_is_said_and_else_model(tmp_path: Path) -> None:
    lay(tmp_path, model_joblib=PICKLE)
    for path in (tmp_path, tmp_path / "model.joblib"):
        assert discover(path) == (Candidate("model", "1", find(tmp_path)),)
        assert names(discover(path, "churn", "7")) == ["churn/7"]
    lay(tmp_path, model_json='{"name": "mine", "version": "2"}')
    for path in (tmp_path, tmp_path / "model.joblib"):
        assert names(discover(path)) == ["mine/2"]
        assert names(discover(path, "churn", "7")) == ["churn/7"]
        assert names(discover(path, None, "7")) == ["mine/7"]


def test_one_bad_model_is_no_repository(tmp_path: Path) -> None:
    lay(tmp_path, model_joblib=b"", other__model_joblib=PICKLE)
    with pytest.raises(BadArtifact, match="is empty"):
        discover(tmp_path)


def test_a_model_beside_directories_is_the_one(tmp_path: Path) -> None:
    lay(tmp_path, model_joblib=PICKLE, code__v1__model_joblib=PICKLE)
    assert names(discover(tmp_path)) == ["model/1"]


def test_a_repository_of_names_and_versions(tmp_path: Path) -> None:
    lay(tmp_path, churn__model_joblib=PICKLE, README_md="", iris__10__model_onnx=onnx_bytes(), iris__9__m_pkl=PICKLE)
    lay(tmp_path, flow__2__MLmodel=MLMODEL, flow__2__model_pkl=PICKLE, iris__9__data__x_pkl=PICKLE)
    lay(tmp_path, tree__MLmodel=MLMODEL, tree__model_pkl=PICKLE, tree__model_json='{"name": "tree", "version": "v2"}')
    found = discover(tmp_path, "ignored", "ignored")
    assert names(found) == ["churn/1", "flow/2", "iris/9", "iris/10", "tree/v2"]
    assert [each.found for each in found if each.name == "iris"] == [
        Artifact(tmp_path / "iris/9/m.pkl", tmp_path, "sklearn", len(PICKLE), code=(tmp_path / "iris/9",)),
        Artifact(
            tmp_path / "iris/10/model.onnx", tmp_path, "onnx", len(onnx_bytes()), form="onnx", code=(tmp_path / "iris/10",)
        ),
    ]
    assert "is a model repository with churn/1, flow/2, " in refusal(tmp_path, ModelNotThere)
    assert f"MODEL_PATH={tmp_path / 'churn'}" in refusal(tmp_path, ModelNotThere)


def test_the_highest_version_is_the_last() -> None:
    versions = ["2024-01-02", "assets", "backup", "v10a", "0", "1.9", "1.10.0", "v2", "007", "9", "10", "v10"]
    for first in (sorted(versions), sorted(versions, reverse=True)):
        assert sorted(first, key=version_order) == versions


def test_one_bad_model_keeps_no_other_from_being_found(tmp_path: Path) -> None:
    lay(tmp_path, good__model_joblib=PICKLE, bad__2__model_joblib=b"", bad__1__model_joblib=PICKLE)
    lay(tmp_path, two__a_pkl=PICKLE, two__b_pkl=PICKLE, empty__notes_txt="", half__1__model_pkl=PICKLE, half__2__notes_txt="")
    found = discover(tmp_path)
    assert names(found) == ["bad/1", "bad/2!", "empty/1!", "good/1", "half/1", "half/2!", "two/1!"]
    said = {f"{each.name}/{each.version}": str(each.found) for each in found}
    assert "is empty: 0 bytes" in said["bad/2"]
    assert f"no model in {tmp_path / 'empty'}, which holds notes.txt" in said["empty/1"]
    assert f"no model in {tmp_path / 'half' / '2'}, which holds notes.txt" in said["half/2"]
    assert "a.pkl (" in said["two/1"]
    assert "b.pkl (" in said["two/1"]


@pytest.mark.parametrize(
    ("directory", "what"), [("-x", "name"), ("a b", "name"), ("m/1 (copy)", "version"), ("x" * 129, "name")]
)
def test_directories_that_are_no_names(tmp_path: Path, directory: str, what: str) -> None:
    lay(tmp_path, good__model_joblib=PICKLE)
    lay(tmp_path / directory, model_joblib=PICKLE)
    assert f"cannot be a model's {what}: expected letters" in fault(discover(tmp_path))


@pytest.mark.parametrize("place", [".git", "..data", "lost+found", "__pycache__", "m/.git", "m/__pycache__"])
def test_what_is_nobodys_model(tmp_path: Path, place: str) -> None:
    lay(tmp_path, m__1__model_joblib=PICKLE)
    lay(tmp_path / place, model_joblib=PICKLE)
    assert names(discover(tmp_path)) == ["m/1"]


def test_the_directories_name_the_models(tmp_path: Path) -> None:
    lay(tmp_path, a__1__m_pkl=PICKLE, a__1__model_json='{"name": "a", "version": "1"}', a__2__m_pkl=PICKLE)
    lay(tmp_path, a__2__model_json='{"version": "3"}')
    found = discover(tmp_path)
    assert names(found) == ["a/1", "a/2!"]
    assert "says the version '3', but in a model repository the directory says it: '2'" in fault(found)


def test_a_repository_in_a_kubernetes_volume(tmp_path: Path) -> None:
    mount, revision = tmp_path / "mount", "..2026_01_01_00_00_00.123"
    lay(mount / revision, churn__3__model_onnx=onnx_bytes("w.bin"), churn__3__w_bin=b"w" * 16, iris__model_pkl=PICKLE)
    (mount / "..data").symlink_to(revision)
    (mount / "churn").symlink_to("..data/churn")
    (mount / "iris").symlink_to("..data/iris")
    found = discover(mount)
    assert names(found) == ["churn/3", "iris/1"]
    assert isinstance(found[0].found, Artifact)
    assert found[0].found.beside == (mount / "churn" / "3" / "w.bin",)


def test_links_stay_inside_of_the_repository(tmp_path: Path) -> None:
    outside, root = lay(tmp_path / "outside", model_pkl=PICKLE), tmp_path / "models"
    lay(root, churn__3__model_pkl=PICKLE)
    (root / "churn" / "latest").symlink_to("3")
    assert names(discover(root)) == ["churn/latest", "churn/3"]
    (root / "other").symlink_to(outside)
    (root / "churn" / "4").symlink_to(outside)
    (root / "file").mkdir()
    (root / "file" / "model.pkl").symlink_to(outside / "model.pkl")
    found = discover(root)
    assert names(found) == ["churn/latest", "churn/3", "churn/4!", "file/1!", "other/1!"]
    assert all("outside of the model's directory" in str(each.found) for each in found if isinstance(each.found, ArtifactFault))


@pytest.mark.parametrize("place", ["other", "churn/4"])
def test_a_directory_outside_of_the_repository_is_not_even_listed(tmp_path: Path, place: str) -> None:
    outside, root = lay(tmp_path / "outside", secret_txt=""), tmp_path / "models"
    lay(root, churn__3__model_pkl=PICKLE)
    (root / place).symlink_to(outside)
    message = fault(discover(root))
    assert f"{root / place} is a link to {outside}, outside of the model's directory" in message
    assert "secret" not in message


@pytest.mark.parametrize("how", ["..", "absolute", "link"])
def test_one_models_weights_are_not_anothers(tmp_path: Path, how: str) -> None:
    lay(tmp_path, a__w_bin=b"w" * 16, a__model_onnx=onnx_bytes("w.bin"))
    location = {"..": "../a/w.bin", "absolute": str(tmp_path / "a" / "w.bin"), "link": "link"}[how]
    lay(tmp_path, b__model_onnx=onnx_bytes(location))
    (tmp_path / "b" / "link").symlink_to("../a/w.bin")
    found = discover(tmp_path)
    assert names(found) == ["a/1", "b/1!"]
    assert "outside of the model's directory" in fault(found)


def test_a_repository_of_nothing_says_what_lies_there(tmp_path: Path) -> None:
    lay(tmp_path, data__train__x_csv="", docs__index_md="")
    with pytest.raises(ModelNotThere) as caught:
        discover(tmp_path)
    assert f"no model in {tmp_path}, which holds data/, docs/, nor below it: no model in {tmp_path / 'data'}" in str(
        caught.value
    )
    assert "Served are files that end in" in str(caught.value)


def test_only_bad_models_are_an_error(tmp_path: Path) -> None:
    lay(tmp_path, a__model_pkl=b"")
    with pytest.raises(BadArtifact, match="is empty"):
        discover(tmp_path)
    lay(tmp_path, b__model_pkl=b"", c__notes_txt="")
    with pytest.raises(BadArtifact) as caught:
        discover(tmp_path)
    assert str(caught.value).startswith(f"none of the 3 models in {tmp_path} can be served: {tmp_path / 'a' / 'model.pkl'} is")


def test_a_place_with_too_many_directories_is_no_repository(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(BadArtifact, match="holds 1001 directories, more than the 1000"):
        discover(tmp_path)


def test_a_model_that_may_not_be_listed_is_a_bad_one(as_anybody: Path) -> None:
    lay(as_anybody, a__model_pkl=PICKLE, b__model_pkl=PICKLE)
    (as_anybody / "b").chmod(0)
    assert "permission denied" in fault(discover(as_anybody))
    (as_anybody / "b").chmod(0o700)
