"""What the commands print for a person: columns that stand in line, and nothing that is cut."""

from runtime.report import WIDTH, settings_text
from runtime.settings import Variable, survey


def test_the_table_of_settings_fits_a_terminal() -> None:
    lines = settings_text(survey(), []).splitlines()
    assert max(map(len, lines)) <= WIDTH
    starts = [lines[0].index(word) for word in ("VALUE", "FROM", "MEANING")]
    rows = [line for line in lines[1:] if line]
    assert all(line[start - 2 : start] in ("  ", "") for line in rows for start in starts)


def test_long_values_are_folded_and_whole() -> None:
    path = "/mnt/" + "volume/" * 12 + "models"
    made = Variable("MODEL_PATH", "/app/models", "a model file", path, "environment")
    lines = settings_text([made], []).splitlines()
    assert max(map(len, lines)) <= WIDTH
    start, stop = lines[0].index("VALUE"), lines[0].index("FROM")
    assert "".join(line[start:stop].strip() for line in lines[1:]) == path
    assert "environment; default" in lines[1]
    assert "/app/models" in " ".join(lines)


def test_values_are_written_as_they_would_be_set() -> None:
    rows = [
        Variable("MAX_BODY_BYTES", None, "m", 2 * 1024 * 1024, "default"),
        Variable("KEEP_ALIVE_S", 75, "m", 75.0, "default"),
        Variable("CPUS", None, "m", None, "default"),
        Variable("ACCESS_LOG", False, "m", False, "default"),
    ]
    text = settings_text(rows, [])
    for cell in ("2097152 (2 MiB)", " 75 ", " - ", " False "):
        assert cell in text


def test_what_is_wrong_stands_below_in_whole_lines() -> None:
    problem = "PORT: input should be a valid integer; it holds a text of 3 characters. " + "It means: the port. " * 5
    made = Variable("PORT", 8080, "the port", None, "environment", problem.strip())
    lines = settings_text([made], ["MODEL_PTAH is no setting"]).splitlines()
    assert "NOT USABLE" in lines[1]
    assert lines[-2:] == [problem.strip(), "warning: MODEL_PTAH is no setting"]
