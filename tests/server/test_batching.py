"""Many clients at once: rows of several requests run together, and each client gets its own answer or its own error."""

import pytest

from tests.badmodels import POISON, SHORT, ExitOnPredict, NotRowIndependent, PoisonModel, ShortModel
from tests.conftest import Serve
from tests.models import Models, dataset
from tests.process import Server, assert_fine, assert_problem, post_bytes

CLIENTS = 64


def row(tag: float, mark: float = 0) -> bytes:
    return post_bytes("/predict", {"features": [tag, mark, 0, 0]})


def batch_rows(server: Server) -> tuple[float, float]:
    """Batches that ran, and the rows in them."""
    return server.metric("ml_batch_rows_count"), server.metric("ml_batch_rows_sum")


@pytest.fixture(scope="module")
def poison(serve_module: Serve, models: Models) -> Server:
    return serve_module(models.write(PoisonModel()))


def test_every_client_gets_its_own_answer_and_batches_form(poison: Server) -> None:
    batches, rows = batch_rows(poison)
    for _ in range(5):
        replies = poison.exchange_all(row(tag) for tag in range(CLIENTS))
        assert [reply.json() for reply in replies] == [{"prediction": tag} for tag in range(CLIENTS)]
    more_batches, more_rows = batch_rows(poison)
    assert more_rows - rows == 5 * CLIENTS
    assert (more_rows - rows) / (more_batches - batches) > 1.5


def test_requests_of_different_sizes_share_batches(poison: Server) -> None:
    bodies = [{"instances": [[100 * client + i, 0, 0, 0] for i in range(client % 7 + 1)]} for client in range(CLIENTS)]
    replies = poison.exchange_all(post_bytes("/predict", body) for body in bodies)
    for client, reply in enumerate(replies):
        assert reply.json() == {"predictions": [100 * client + i for i in range(client % 7 + 1)]}


def test_one_bad_request_in_a_batch_fails_alone(poison: Server) -> None:
    pid = poison.pid
    tags = [POISON if client in (3, 17, 40) else client for client in range(CLIENTS)]
    for _ in range(3):
        replies = poison.exchange_all(map(row, tags))
        for tag, reply in zip(tags, replies, strict=True):
            if tag == POISON:
                assert assert_problem(reply, 500)["code"] == "model_failed"
            else:
                assert reply.json() == {"prediction": tag}
    assert_fine(poison, {"features": [1, 0, 0, 0]}, pid)
    assert any("poisoned" in line for line in poison.lines), "the log must say what the model raised"


def test_a_bad_request_alone_fails_alone(poison: Server) -> None:
    problem = assert_problem(poison.predict({"features": [POISON, 0, 0, 0]}), 500)
    assert "poisoned" not in problem["detail"]
    assert_problem(poison.predict({"instances": [[1, 0, 0, 0], [POISON, 0, 0, 0]]}), 500)


def test_many_bad_requests_at_once(poison: Server) -> None:
    replies = poison.exchange_all(row(POISON) for _ in range(CLIENTS))
    assert {reply.status for reply in replies} == {500}
    assert poison.answer({"features": [7, 0, 0, 0]}) == {"prediction": 7}


def test_a_forest_runs_batches_in_its_lane(serve: Serve, models: Models) -> None:
    server = serve(models("wine"))
    rows = dataset("wine")[0]
    expected = models.estimator("wine").predict_proba(rows)
    replies = server.exchange_all(post_bytes("/predict", {"features": values}) for values in rows.tolist())
    for reply, probabilities in zip(replies, expected, strict=True):
        assert reply.json()["probability"] == pytest.approx(probabilities.tolist(), rel=1e-9)
    batches, total = batch_rows(server)
    assert total == len(rows)
    assert total / batches > 1.5


def test_a_cheap_model_answers_each_client_its_own(serve: Serve, models: Models) -> None:
    server = serve(models("iris"))
    rows = dataset("iris")[0]
    model = models.estimator("iris")
    expected = zip(model.predict(rows).tolist(), model.predict_proba(rows).tolist(), strict=True)
    replies = server.exchange_all(post_bytes("/predict", {"features": values}) for values in rows.tolist())
    for reply, (label, probabilities) in zip(replies, expected, strict=True):
        answer = reply.json()
        assert answer["prediction"] == label
        assert answer["probability"] == pytest.approx(probabilities, rel=1e-9)


def test_rows_of_different_lengths_never_mix(serve: Serve, models: Models) -> None:
    server = serve(models("dynamic_trailing"))
    bodies = [[[float(client)] * (client % 5 + 1)] * (client % 3 + 1) for client in range(CLIENTS)]
    replies = server.exchange_all(post_bytes("/predict", {"inputs": {"x": rows}}) for rows in bodies)
    for rows, reply in zip(bodies, replies, strict=True):
        doubled = [[2 * value for value in values] for values in rows]
        assert reply.json() == {"outputs": {"total": [sum(values) for values in rows], "double": doubled}}


def test_an_answer_that_is_too_short_is_an_error_and_never_another_clients(serve: Serve, models: Models) -> None:
    server = serve(models.write(ShortModel(more_than=1)))
    pid = server.pid
    problem = assert_problem(server.predict({"instances": [[1, SHORT, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]]}), 500, "3 rows")
    assert problem["code"] == "model_failed"
    # In a batch with others: the batch is halved until each request runs alone, where this model answers rightly.
    for _ in range(3):
        replies = server.exchange_all(row(tag, SHORT if tag % 8 == 0 else 0) for tag in range(CLIENTS))
        for tag, reply in enumerate(replies):
            assert reply.status == 200, reply.body
            assert reply.json() == {"prediction": tag}
    assert_fine(server, {"features": [1, 0, 0, 0]}, pid)


def test_a_model_whose_rows_depend_on_each_other_is_never_batched(serve: Serve, models: Models) -> None:
    server = serve(models.write(NotRowIndependent()))
    replies = server.exchange_all(row(tag) for tag in range(CLIENTS))
    assert [reply.json() for reply in replies] == [{"prediction": 0}] * CLIENTS
    batches, rows = batch_rows(server)
    assert batches == rows == CLIENTS
    # What one client sends together runs together: these are its own rows.
    assert server.answer({"instances": [[1, 0, 0, 0], [3, 0, 0, 0]]}) == {"predictions": [-1, 1]}


def test_a_model_that_exits_ends_its_request_and_nothing_else(serve: Serve, models: Models) -> None:
    server = serve(models.write(ExitOnPredict()))
    pid = server.pid
    for _ in range(3):
        replies = server.exchange_all(row(POISON if tag == 5 else tag) for tag in range(16))
        assert [reply.status for reply in replies] == [500 if tag == 5 else 200 for tag in range(16)]
    assert_fine(server, {"features": [1, 0, 0, 0]}, pid)
