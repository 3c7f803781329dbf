"""Models of every kind, real ones of scikit-learn's data sets among them: each answers what the direct call answers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from tests.badmodels import OddNumbers, TellsJobs
from tests.conftest import Serve
from tests.models import FLOWER, IRIS_COLUMNS, SPECIES, Models, dataset
from tests.process import Server, assert_problem, post_bytes


def test_digits(serve: Serve, models: Models) -> None:
    rows = dataset("digits")[0][::9]
    answer = serve(models("digits")).answer({"instances": rows.tolist()})
    assert answer == {"predictions": models.estimator("digits").predict(rows).tolist()}


def test_wine_one_by_one_and_all_at_once(serve: Serve, models: Models) -> None:
    rows = dataset("wine")[0]
    forest = models.estimator("wine")
    server = serve(models("wine"))
    together = server.answer({"instances": rows.tolist()})
    assert together["predictions"] == forest.predict(rows).tolist()
    assert np.allclose(together["probabilities"], forest.predict_proba(rows), rtol=1e-9)
    replies = server.exchange_all(post_bytes("/predict", {"features": row}) for row in rows[::4].tolist())
    assert [reply.json()["prediction"] for reply in replies] == forest.predict(rows[::4]).tolist()


def test_wine_as_onnx(serve: Serve, models: Models) -> None:
    rows = dataset("wine")[0].astype(np.float32)
    labels, probabilities = models.session("wine_onnx").run(None, {"X": rows})
    for form in ("wine_onnx", "wine_onnx_zipmap"):
        answer = serve(models(form)).answer({"instances": rows.tolist()})
        assert answer["predictions"] == labels.tolist()
        assert np.allclose(answer["probabilities"], probabilities, rtol=1e-5)


def test_diabetes(serve: Serve, models: Models) -> None:
    rows = dataset("diabetes")[0]
    server = serve(models("diabetes"))
    expected = models.estimator("diabetes").predict(rows)
    answer = server.answer({"instances": rows.tolist()})
    assert list(answer) == ["predictions"]
    assert np.allclose(answer["predictions"], expected, rtol=1e-9)
    one = server.answer({"features": rows[0].tolist()})
    assert list(one) == ["prediction"]
    assert one["prediction"] == pytest.approx(expected[0], rel=1e-9)


@pytest.mark.parametrize("name", ["clusters", "outliers"])
def test_clusters_and_outliers(serve: Serve, models: Models, name: str) -> None:
    rows = dataset("iris")[0][::5]
    server = serve(models(name))
    expected = models.estimator(name).predict(rows).tolist()
    assert server.answer({"instances": rows.tolist()}) == {"predictions": expected}
    one = server.answer({"features": rows[0].tolist()})
    assert one == {"prediction": expected[0]}
    assert type(one["prediction"]) is int


@pytest.mark.parametrize("name", ["transformer", "sparse_transformer"])
def test_a_transformer(serve: Serve, models: Models, name: str) -> None:
    rows = dataset("iris")[0][::5]
    server = serve(models(name))
    expected = models.estimator(name).transform(rows)
    expected = expected.toarray() if hasattr(expected, "toarray") else expected
    answer = server.answer({"instances": rows.tolist()})
    assert list(answer) == ["transform"]
    assert np.allclose(answer["transform"], expected, rtol=1e-9, atol=1e-12)
    one = server.answer({"features": rows[0].tolist()})
    assert list(one) == ["transform"]
    assert np.allclose(one["transform"], expected[0], rtol=1e-9, atol=1e-12)


def test_labels_are_strings(serve: Serve, models: Models) -> None:
    rows = dataset("iris")[0][::50]
    server = serve(models("string_labels"))
    answer = server.answer({"instances": rows.tolist()})
    assert answer["predictions"] == models.estimator("string_labels").predict(rows).tolist()
    assert set(answer["predictions"]) <= set(SPECIES)
    assert server.get("/models/model").json()["classes"] == SPECIES
    onnx = serve(models("string_labels_onnx"))
    answer = onnx.answer({"instances": rows.tolist()})
    assert answer["predictions"] == models.estimator("string_labels").predict(rows).tolist()
    assert onnx.get("/models/model").json()["classes"] == SPECIES


def test_labels_are_booleans(serve: Serve, models: Models) -> None:
    rows = dataset("iris")[0][::50]
    server = serve(models("bool_labels"))
    answer = server.answer({"instances": rows.tolist()})
    assert answer["predictions"] == [True, False, False]
    assert [type(label) for label in answer["predictions"]] == [bool] * 3
    assert server.get("/models/model").json()["classes"] == [False, True]


def test_several_targets(serve: Serve, models: Models) -> None:
    rows = dataset("iris")[0][::30]
    expected = models.estimator("multi_regressor").predict(rows[:, :2])
    server = serve(models("multi_regressor"))
    assert np.allclose(server.answer({"instances": rows[:, :2].tolist()})["predictions"], expected, rtol=1e-9)
    assert np.allclose(server.answer({"features": rows[0, :2].tolist()})["prediction"], expected[0], rtol=1e-9)


def test_several_targets_of_a_classifier(serve: Serve, models: Models) -> None:
    rows = dataset("iris")[0][::30]
    model = models.estimator("multi_classifier")
    answer = serve(models("multi_classifier")).answer({"instances": rows.tolist()})
    assert answer["predictions"] == model.predict(rows).tolist()
    species, not_setosa = model.predict_proba(rows)
    for given, first, second in zip(answer["probabilities"], species, not_setosa, strict=True):
        assert np.allclose(given[0], first, rtol=1e-9)
        assert np.allclose(given[1], second, rtol=1e-9)


def test_missing_values(serve: Serve, models: Models) -> None:
    server = serve(models("missing_values"))
    rows = [[5.1, None, 1.4, None], [None, None, None, None], [6.7, 3.0, 5.2, 2.3]]
    model = models.estimator("missing_values")
    as_numbers = np.array(rows, dtype=float)
    answer = server.answer({"instances": rows})
    assert answer["predictions"] == model.predict(as_numbers).tolist()
    assert np.allclose(answer["probabilities"], model.predict_proba(as_numbers), rtol=1e-9)
    assert server.answer({"features": rows[0]})["prediction"] == answer["predictions"][0]
    assert_problem(server.predict({"features": ["5.1", None, 1.4, None]}), 422, "features[0]")


def test_jobs_of_a_pickle_are_not_started(serve: Serve, models: Models) -> None:
    rows = dataset("iris")[0][::5]
    server = serve(models("neighbours"), CPUS=1)
    answer = server.answer({"instances": rows.tolist()})
    assert answer["predictions"] == models.estimator("neighbours").predict(rows).tolist()
    assert not Path(f"/proc/{server.worker}/task/{server.worker}/children").read_text().strip()
    assert server.threads() <= 3


def test_nested_jobs_become_one(serve: Serve, models: Models) -> None:
    scaler = models.estimator("iris")[0]
    server = serve(models.write(make_pipeline(scaler, TellsJobs(4, inner=TellsJobs(-1)))))
    assert server.answer({"features": FLOWER}) == {"prediction": 101}


def test_a_model_of_a_data_frame_warns_nobody(serve: Serve, models: Models) -> None:
    rows = dataset("iris")[0]
    server = serve(models("columns"))
    assert (
        server.answer({"instances": rows.tolist()})["predictions"]
        == models.estimator("columns").predict(pd.DataFrame(rows, columns=IRIS_COLUMNS)).tolist()
    )
    assert not any("feature names" in line for line in server.lines)


# --- ONNX -------------------------------------------------------------------------------------------------------------


def test_an_image_model(serve: Serve, models: Models) -> None:
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).round(3)
    (expected,) = models.session("image").run(None, {"data_0": image.astype(np.float32)})
    server = serve(models("image"))
    answer = server.answer({"inputs": {"data_0": image.tolist()}})
    assert np.allclose(answer["outputs"]["softmaxout_1"], expected, rtol=1e-5)
    assert np.shape(answer["outputs"]["softmaxout_1"]) == (1, 1000, 1, 1)
    assert_problem(server.predict({"inputs": {"data_0": image[:, :2].tolist()}}), 422, "data_0")


def test_images_of_a_small_convolution(serve: Serve, models: Models) -> None:
    images = np.random.default_rng(1).normal(size=(5, 3, 16, 16)).round(3)
    (expected,) = models.session("small_image").run(None, {"image": images.astype(np.float32)})
    server = serve(models("small_image"))
    assert np.allclose(server.answer({"inputs": {"image": images.tolist()}})["outputs"]["scores"], expected, rtol=1e-4)
    assert np.allclose(server.answer({"instances": images.tolist()})["predictions"], expected, rtol=1e-4)
    assert np.allclose(server.answer({"features": images[0].tolist()})["prediction"], expected[0], rtol=1e-4)


def test_columns_of_numbers_and_strings(serve: Serve, models: Models) -> None:
    server = serve(models("mixed_columns_onnx"))
    ages, cities = [[25.0], [65.0], [30.0]], [["Oslo"], ["Bern"], ["Nowhere"]]
    feed = {"age": np.array(ages, dtype=np.float32), "city": np.array(cities, dtype=object)}
    labels, probabilities = models.session("mixed_columns_onnx").run(None, feed)
    answer = server.answer({"inputs": {"age": ages, "city": cities}})
    assert answer["outputs"]["label"] == labels.tolist()
    people = [{"age": age[0], "city": city[0]} for age, city in zip(ages, cities, strict=True)]
    by_row = server.answer({"instances": people})
    assert by_row["predictions"] == labels.tolist()
    assert np.allclose(by_row["probabilities"], probabilities, rtol=1e-5)
    one = server.answer({"features": people[1]})
    assert list(one) == ["prediction", "probability"]
    assert one["prediction"] == labels[1]
    assert_problem(server.predict({"features": {"age": "41", "city": "Oslo"}}), 422, "age")
    assert_problem(server.predict({"features": {"age": 41, "city": 7}}), 422, "city")
    assert_problem(server.predict({"features": {"age": 41}}), 422, "city")


def test_a_fixed_batch_of_one(serve: Serve, models: Models) -> None:
    server = serve(models("fixed_batch_1"))
    assert server.answer({"features": [1, 2, 3]}) == {"prediction": [2, 4, 6]}
    answer = server.answer({"instances": [[1, 2, 3], [4, 5, 6]]})
    assert answer == {"predictions": [[2, 4, 6], [8, 10, 12]]}
    replies = server.exchange_all(post_bytes("/predict", {"features": [i, i, i]}) for i in range(20))
    assert [reply.json()["prediction"] for reply in replies] == [[2 * i] * 3 for i in range(20)]


def test_a_fixed_batch_of_four(serve: Serve, models: Models) -> None:
    server = serve(models("fixed_batch_4"))
    rows = [[float(i), 0.5, -1.0] for i in range(8)]
    doubled = [[2 * value for value in row] for row in rows]
    assert server.answer({"inputs": {"x": rows[:4]}}) == {"outputs": {"double": doubled[:4]}}
    assert server.answer({"instances": rows}) == {"predictions": doubled}
    for count in (1, 3, 5):
        assert_problem(server.predict({"instances": rows[:count]}), 422, "4")


def test_no_row_axis(serve: Serve, models: Models) -> None:
    server = serve(models("no_batch_axis"))
    assert server.answer({"inputs": {"x": [[1, 2], [3, 4], [5, 6]]}}) == {"outputs": {"sums": [9, 12]}}
    assert_problem(server.predict({"inputs": {"x": [[1, 2], [3, 4]]}}), 422, "x")
    bodies = [{"inputs": {"x": [[i, 0], [i, 0], [i, 1]]}} for i in range(20)]
    replies = server.exchange_all(post_bytes("/predict", body) for body in bodies)
    assert [reply.json()["outputs"]["sums"] for reply in replies] == [[3 * i, 1] for i in range(20)]


def test_a_scalar(serve: Serve, models: Models) -> None:
    server = serve(models("scalar"))
    assert server.answer({"inputs": {"x": 2.5}}) == {"outputs": {"double": 5.0}}
    for wrong in ([2.5], "2.5", None, True):
        assert server.predict({"inputs": {"x": wrong}}).status_code in ((200, 422) if wrong is None else (422,))


def test_rows_of_any_length(serve: Serve, models: Models) -> None:
    server = serve(models("dynamic_trailing"))
    answer = server.answer({"inputs": {"x": [[1, 2, 3], [4, 5, 6]]}})
    assert answer == {"outputs": {"total": [6, 15], "double": [[2, 4, 6], [8, 10, 12]]}}
    assert server.answer({"inputs": {"x": [[7]]}})["outputs"]["total"] == [7]
    assert_problem(server.predict({"inputs": {"x": [[1, 2, 3], [4, 5]]}}), 422, "x")


def check_odd_numbers(server: Server) -> None:
    assert server.answer({"features": [1001, 0, 0, 0]}) == {"prediction": None}
    assert server.answer({"instances": [[1, 0, 0, 0], [1001, 0, 0, 0]]}) == {"predictions": [1, None]}
    for tag in (1002, 1003):
        problem = assert_problem(server.predict({"features": [tag, 0, 0, 0]}), 500, "infinity")
        assert problem["code"] == "not_representable"
        assert_problem(server.predict({"instances": [[1, 0, 0, 0], [tag, 0, 0, 0]]}), 500)
    assert server.answer({"features": [5, 0, 0, 0]}) == {"prediction": 5}


def test_nan_and_infinity_in_an_answer(serve: Serve, models: Models) -> None:
    server = serve(models.write(OddNumbers()))
    check_odd_numbers(server)
    tags = [1, 1001, 1002, 4, 1003, 6] * 5
    replies = server.exchange_all(post_bytes("/predict", {"features": [tag, 0, 0, 0]}) for tag in tags)
    for tag, reply in zip(tags, replies, strict=True):
        if tag in (1002, 1003):
            assert_problem(reply, 500, "infinity")
        else:
            assert reply.json() == {"prediction": None if tag == 1001 else tag}
