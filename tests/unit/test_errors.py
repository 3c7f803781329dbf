"""Every failure has its row in the table of statuses, a code of its own, and messages that hold no value of a request."""

from collections.abc import Iterator

import pytest

from runtime import errors
from runtime.dialects.problem import STATUSES
from runtime.errors import ArtifactFault, RuntimeFault, did_you_mean, kind_of, plural, quoted


def faults(of: type[RuntimeFault] = RuntimeFault) -> Iterator[type[RuntimeFault]]:
    for kind in of.__subclasses__():
        yield kind
        yield from faults(kind)


ALL = sorted({kind for kind in faults() if kind.__module__ == "runtime.errors"}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", ALL)
def test_every_failure_has_its_row(kind: type[RuntimeFault]) -> None:
    assert kind in STATUSES
    assert 400 <= STATUSES[kind] < 600


def test_no_failure_is_made_elsewhere_and_no_row_is_left_over() -> None:
    assert {kind for kind in faults() if kind.__module__.startswith("runtime.")} == set(ALL) == set(STATUSES)
    assert len(ALL) > 15


def test_codes_are_stable_words_and_no_two_share_one() -> None:
    codes = [kind.code for kind in ALL]
    assert len(codes) == len(set(codes))
    assert all(code.isidentifier() and code == code.lower() for code in codes)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.BadRequest, 400),
        (errors.ModelNotFound, 404),
        (errors.BodyTooLarge, 413),
        (errors.UnsupportedType, 415),
        (errors.InputMismatch, 422),
        (errors.ModelFailed, 500),
        (errors.NotRepresentable, 500),
        (errors.NotReady, 503),
        (errors.Overloaded, 503),
        (errors.Draining, 503),
        (errors.DeadlinePassed, 504),
    ],
)
def test_the_statuses_that_were_promised(kind: type[RuntimeFault], status: int) -> None:
    assert STATUSES[kind] == status


def test_what_ends_a_load_is_never_the_clients_fault() -> None:
    assert {STATUSES[kind] for kind in (ArtifactFault, *faults(ArtifactFault))} == {500}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (True, "a boolean"),
        (17, "an integer"),
        (1.5, "a number"),
        ("secret", "a string"),
        ({"secret": 1}, "an object"),
        (None, "null"),
        (["secret"] * 3, "an array of 3"),
        ([], "an array of 0"),
        (b"secret", "something that JSON does not know"),
    ],
)
def test_a_value_is_named_by_its_type(value: object, named: str) -> None:
    assert kind_of(value) == named


def test_plural() -> None:
    assert [plural(count, "row") for count in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]


@pytest.mark.parametrize(
    ("word", "known", "tail"),
    [
        ("instance", ["features", "instances"], "did you mean 'instances'?"),
        ("Features", ["features", "instances"], "did you mean 'features'?"),
        ("zzz", ["features", "instances"], "expected 'features' or 'instances'"),
        ("zzz", [f"c{i}" for i in range(40)], ", ..."),
        ("x" * 1_000_000, ["features"], "expected 'features'"),
    ],
)
def test_the_nearest_known_word(word: str, known: list[str], tail: str) -> None:
    assert did_you_mean(word, known).endswith(tail)


@pytest.mark.parametrize("word", ["a\r\nb", "\x1b[31mred", "x" * 10_000, "ünïcode\u2028\u0085", "\ud800", "'\"", ""])
def test_a_name_that_a_client_chose_is_fit_for_a_log_line(word: str) -> None:
    shown = quoted(word)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) < 400


def test_a_short_name_is_shown_whole() -> None:
    assert quoted("petal_width") == "'petal_width'"
