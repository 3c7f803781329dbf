"""Long lists of floats become arrays as they would value by value, and nothing else passes for one."""

import math
import random
import struct
from typing import Any

import pytest

from runtime import floats
from runtime.errors import InputMismatch
from runtime.tensors import TensorSpec, from_flat

CHANCE = random.Random(0)
MANY = [CHANCE.uniform(-1, 1) * 10.0 ** CHANCE.randint(-300, 300) for _ in range(5000)]
SPECIAL = [0.0, -0.0, 5e-324, -5e-324, 1.7976931348623157e308, 0.1, 1 / 3, math.pi]


@pytest.mark.parametrize("values", [MANY, SPECIAL * 100, [1.0], [MANY[0]] * 1000], ids=["many", "special", "one", "the same"])
def test_floats_keep_every_bit(values: list[float]) -> None:
    made = floats.of_list(values)
    assert made is not None
    assert made.tobytes() == struct.pack(f"<{len(values)}d", *values)


@pytest.mark.parametrize("other", [1, True, None, "g", "123456789", [1.0], {}, 10**30, 2**31, 2**40])
@pytest.mark.parametrize("at", [0, 1, 500, 999])
def test_anything_else_among_them_is_seen(other: Any, at: int) -> None:
    values: list[Any] = [1.5] * 1000
    values[at] = other
    assert floats.of_list(values) is None


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16"])
def test_both_ways_give_the_same_array(datatype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TensorSpec("x", datatype, (-1, 4))
    values = [CHANCE.uniform(-60000, 60000) for _ in range(4000)]
    quick = from_flat(spec, values, [1000, 4], "x")
    monkeypatch.setattr(floats, "of_list", lambda _: None)
    plain = from_flat(spec, values, [1000, 4], "x")
    assert quick.dtype == plain.dtype == spec.dtype
    assert quick.tobytes() == plain.tobytes()
    quick[0, 0] = 1  # some models write into what they are given


def test_what_is_too_large_is_named_where_it_stands() -> None:
    values = [1.0] * 1000
    values[777] = 1e39
    with pytest.raises(InputMismatch, match=r"x\[194\]\[1\] is larger than this model's numbers can be"):
        from_flat(TensorSpec("x", "FP32", (-1, 4)), values, [250, 4], "x")
