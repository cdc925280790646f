"""The service with FastAPI answers as the model does."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fastmf
from tests.examples.conftest import EXAMPLES, Running

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

pytestmark = pytest.mark.slow


@pytest.fixture
def client(start: Callable[..., Running], model: Any, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "filters.json").write_text(json.dumps({"few": ["film-000", "film-001", "film-002"]}))
    with serving(start, MODEL="model", FILTERS="filters.json") as client:
        yield client


@contextmanager
def serving(start: Callable[..., Running], **environment: str) -> Iterator[Any]:
    """The service on a port that the system has chosen."""
    words = ("-m", "uvicorn", "--app-dir", EXAMPLES, "fastapi_app:app", "--port", 0)
    running = start(*words, **environment)
    assert running.process.stderr is not None
    told = (re.search(r"running on (http://[\d.:]+)", line) for line in running.process.stderr)
    address = next(found[1] for found in told if found)
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client
    assert running.end() in (0, -15)


def items_of(recommended: fastmf.Recommendations) -> list[dict[str, Any]]:
    return recommended.to_arrow().select(["item_id", "score"]).to_pylist()


def test_the_service(client: Any, model: Any, other_model: Any, tmp_path: Path) -> None:
    assert client.get("/health").json()["status"] == "ok"

    found = client.get("/recommend/user-0001", params={"k": 5})
    assert found.json() == {
        "user_id": "user-0001",
        "by_popularity": False,
        "items": items_of(model.recommend(["user-0001"], k=5)),
    }
    found = client.get("/recommend/user-0001", params={"filter": "few"}).json()
    allowed = [f"film-00{number}" for number in range(3)]
    assert found["items"] == items_of(model.recommend(["user-0001"], k=10, allow=allowed))
    assert client.get("/recommend/nobody").json()["by_popularity"] is True

    found = client.post("/recommend_for", json={"history": {"film-000": 1, "film-003": 2}, "k": 4}).json()
    ratings = fastmf.Interactions.from_arrays(["-1", "-1"], ["film-000", "film-003"], [1, 2])
    assert found == {"by_popularity": False, "items": items_of(model.recommend_for(ratings, k=4))}

    similar = client.get("/similar/film-000", params={"k": 3}).json()
    expected = model.similar_items(["film-000"], 3).to_arrow()
    assert [item["item_id"] for item in similar] == expected["similar_item_id"].to_pylist()

    other_model.save(tmp_path / "model", overwrite=True)
    assert client.post("/swap").status_code == 200
    found = client.get("/recommend/user-0001", params={"k": 5}).json()
    assert found["items"] == items_of(other_model.recommend(["user-0001"], k=5))
    assert client.get("/stats").json()["swaps"] == 1


def test_ids_with_slashes_and_a_newcomer_beside_a_user_of_an_odd_name(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    """A newcomer of whom nothing is known gets popular items, not those of a user who happens to have some id."""
    users, items = ["-1", "-1", "a/b", "a/b", "c"], ["x/1?&", "x/2", "x/2", "x/3", "x/1?&"]
    model = fastmf.ImplicitALS(n_factors=2, n_epochs=1).fit(fastmf.Interactions.from_arrays(users, items))
    model.save(tmp_path / "model")
    with serving(start, MODEL="model") as client:
        found = client.get("/recommend/a%2Fb").json()
        assert found == {"user_id": "a/b", "by_popularity": False, "items": items_of(model.recommend(["a/b"], k=3))}
        similar = client.get("/similar/x%2F1%3F%26").json()
        assert {item["item_id"] for item in similar} == {"x/2", "x/3"}
        found = client.post("/recommend_for", json={"history": {"x/unknown": 1}}).json()
        assert found["by_popularity"] is True
        assert len(found["items"]) == 3


@pytest.mark.parametrize(
    ("path", "status", "complaint"),
    [
        ("/similar/film-999", 404, "film-999"),
        ("/recommend/user-0001?filter=absent", 422, "absent"),
        ("/recommend/user-0001?k=0", 422, "greater than or equal to 1"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(path: str, status: int, complaint: str, client: Any) -> None:
    found = client.get(path)

    assert found.status_code == status
    assert complaint in found.text


def test_a_damaged_model_is_not_taken_up(client: Any, model: Any, tmp_path: Path) -> None:
    (tmp_path / "model" / "item_factors.npy").write_bytes(b"\0")

    assert client.post("/swap").status_code == 503
    found = client.get("/recommend/user-0001", params={"k": 5})
    assert len(found.json()["items"]) == 5
