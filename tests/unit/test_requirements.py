"""requirements.txt beside a model: what differs is said, whatever else the file holds."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from runtime.requirements import compare

NUMPY = version("numpy")


def said(tmp_path: Path, text: str | bytes) -> tuple[str, ...]:
    file = tmp_path / "requirements.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return compare(file)


@pytest.mark.parametrize(
    "line",
    [
        f"numpy=={NUMPY}",
        f"NumPy == {NUMPY}  # as it was",
        f"numpy=={NUMPY} \\\n    --hash=sha256:0123 \\\n    --hash=sha256:4567",
        f"numpy=={NUMPY} --hash=sha256:0123",
        f"numpy=={NUMPY}\r",
        "numpy>=1,<100",
        "numpy",
        "scikit_learn",
        "sklearn",
        "pandas[performance]>=2",
        "xgboost==2.0; python_version < '3'",
        "xgboost==2.0; extra == 'gpu'",
        "# xgboost==2.0",
        "",
    ],
)
def test_what_is_met_is_not_said(tmp_path: Path, line: str) -> None:
    assert said(tmp_path, line) == ()


@pytest.mark.parametrize("wanted", ["numpy==1.0", "numpy<2", "numpy!=" + NUMPY])
def test_another_version_is_said(tmp_path: Path, wanted: str) -> None:
    assert said(tmp_path, wanted) == (f"requirements.txt wants {wanted}, and here is {NUMPY}",)
    python = f"python_version >= '3.{sys.version_info.minor}'"
    assert said(tmp_path, f"{wanted}; {python}") == (f"requirements.txt wants {wanted}, and here is {NUMPY}",)


@pytest.mark.parametrize(
    ("wanted", "line"), [("xgboost==2.0", "xgboost==2.0"), ("xgboost", "xgboost"), ("xgboost~=2.0", "'xgboost~=2.0'")]
)
def test_what_is_not_installed_is_said_with_the_line_to_add(tmp_path: Path, wanted: str, line: str) -> None:
    (sentence,) = said(tmp_path, wanted)
    assert sentence.startswith(f"requirements.txt wants {wanted}, which is not installed: add RUN pip install {line} to")


@pytest.mark.parametrize(
    "line",
    [
        "-r base.txt",
        "--index-url https://example.org/simple",
        "-e .",
        "./churn.whl",
        "/wheels/churn-1.0-py3-none-any.whl",
        "https://example.org/churn.whl",
        "churn @ https://example.org/churn.whl",
        "git+https://example.org/churn.git",
        "numpy==" + "9" * 5000,
        "numpy==not a version",
        "numpy; nonsense == '1'",
        "numpy; os_name ~= 'posix'",
        "numpy; " + "(" * 1500 + "python_version > '3'" + ")" * 400,
        "\x00\x01\x02",
    ],
)
def test_what_cannot_be_compared_is_counted(tmp_path: Path, line: str) -> None:
    assert said(tmp_path, line) == ("1 line of requirements.txt was not compared",)
    assert said(tmp_path, f"{line}\nnumpy==1.0\n{line}")[-1] == "2 lines of requirements.txt were not compared"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_a_powershell_writes_is_read(tmp_path: Path, encoding: str) -> None:
    (sentence,) = said(tmp_path, "numpy==1.0\r\n".encode(encoding))
    assert "wants numpy==1.0" in sentence


def test_mlflow_s_own_line_is_left_out(tmp_path: Path) -> None:
    assert len(said(tmp_path, "mlflow==3.0\nnumpy==1.0")) == 2
    (tmp_path / "MLmodel").touch()
    (sentence,) = said(tmp_path, "mlflow==3.0\nnumpy==1.0")
    assert "numpy" in sentence


def test_a_long_list_ends(tmp_path: Path) -> None:
    sentences = said(tmp_path, "\n".join(f"absent-{i}==1" for i in range(3000)))
    assert len(sentences) == 32
    assert sentences[-2:] == (
        "requirements.txt wants 1970 more packages otherwise than they are here",
        "1000 lines of requirements.txt were not compared",
    )


def test_one_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    assert said(tmp_path, b"#" * (1024 * 1024 + 1)) == (
        "requirements.txt is larger than 1,048,576 bytes, and was not compared",
    )


def test_what_is_no_file_says_nothing(tmp_path: Path) -> None:
    assert compare(tmp_path) == ()
    assert compare(tmp_path / "nowhere") == ()


def test_random_bytes_raise_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, bytes(range(256)) * 16)[-1].endswith("not compared")
