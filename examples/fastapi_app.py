"""A service with FastAPI: recommendations for users, for newcomers by their history, and similar items.

Start it (needs ``pip install fastapi uvicorn``), and ask:

    MODEL=model FILTERS=filters.json uvicorn --app-dir examples fastapi_app:app --port 8000
    curl 'localhost:8000/recommend/alice?k=5&filter=in%20stock'
    curl localhost:8000/recommend_for -H 'Content-Type: application/json' -d '{"history": {"tea": 1}, "k": 5}'

FILTERS, which may be left out, is a JSON object of names and lists of item ids. After a new model has taken the place
of the old one, ``curl -X POST localhost:8000/swap`` takes it up while requests run.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import fastmf
from fastmf.errors import FastMFError, ModelError, UnknownIdError

MODEL = os.environ.get("MODEL", "model")
Count = Annotated[int, Query(ge=1, le=1000)]
Names = Annotated[list[str], Query(alias="filter")]


class Newcomer(BaseModel):
    """Somebody's ratings by item id; 1 stands for a click or a purchase."""

    history: dict[str, float] = Field(min_length=1)
    k: int = Field(10, ge=1, le=1000)
    filters: list[str] = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model, and do before the first request what it would wait for."""
    filters = json.loads(Path(os.environ["FILTERS"]).read_text()) if "FILTERS" in os.environ else {}
    app.state.recommender = fastmf.Recommender(MODEL, filters=filters)
    app.state.recommender.warmup(k=1)
    yield


app = FastAPI(title="Recommendations", lifespan=lifespan)


# Endpoints are plain functions: FastAPI calls them on its threads, and the search releases the interpreter lock.
# An id may have slashes in it: ":path".
@app.get("/recommend/{user:path}")
def recommend(user: str, k: Count = 10, filters: Names = []) -> dict[str, Any]:  # noqa: B006 - FastAPI copies it
    """Recommend items to a user; one of whom nothing is known gets popular items."""
    model = app.state.recommender.model
    users = [as_id(user, model.user_ids)]
    found = app.state.recommender.recommend(users, min(k, len(model.item_ids)), filters=filters)
    return {"user_id": user, "by_popularity": bool(found.by_popularity[0]), "items": items_of(found.to_arrow())}


@app.post("/recommend_for")
def recommend_for(asked: Newcomer) -> dict[str, Any]:
    """Recommend items to somebody who is no user of the model, by what he has rated."""
    model = app.state.recommender.model
    items = [as_id(item, model.item_ids) for item in asked.history]
    ratings = fastmf.Interactions.from_arrays(
        [nobody(model.user_ids)] * len(items), items, list(asked.history.values())
    )
    found = app.state.recommender.recommend_for(ratings, min(asked.k, len(model.item_ids)), filters=asked.filters)
    return {"by_popularity": bool(found.by_popularity[0]), "items": items_of(found.to_arrow())}


@app.get("/similar/{item:path}")
def similar(item: str, k: Count = 10) -> Any:
    """Find items like one."""
    model = app.state.recommender.model
    found = app.state.recommender.similar_items([as_id(item, model.item_ids)], min(k, len(model.item_ids) - 1))
    return items_of(found.to_arrow().drop_columns("item_id").rename_columns(["rank", "item_id", "score"]))


@app.post("/swap")
def swap() -> dict[str, Any]:
    """Take up the model that is at its path now; the old one goes on if that is none."""
    app.state.recommender.swap(MODEL, verify=True)
    return {"model": MODEL, "items": len(app.state.recommender.model.item_ids)}


@app.get("/stats")
def stats() -> dict[str, Any]:
    """Count requests, and give the quantiles of their seconds."""
    return dict(app.state.recommender.stats())


@app.get("/health")
def health() -> dict[str, str]:
    """Answer once the model is loaded and warm."""
    return {"status": "ok"}


@app.exception_handler(FastMFError)
def refuse(_: Request, error: FastMFError) -> JSONResponse:
    """Tell what is wrong with a request in the words of the library."""
    status = 404 if isinstance(error, UnknownIdError) else 503 if isinstance(error, ModelError) else 422
    return JSONResponse({"detail": str(error)}, status)


def as_id(text: str, ids: pa.Array) -> int | str:
    """Return an id of a URL in the type of those of the model."""
    try:
        return int(text) if pa.types.is_integer(ids.type) else text
    except ValueError:
        raise UnknownIdError(f"there is no id {text!r}; expected an integer") from None


def nobody(ids: pa.Array) -> int | str:
    """Return an id that no user of the model has: he would be taken for a newcomer."""
    last = ids[-1].as_py()
    if isinstance(last, str):
        return f"{last}+"
    return int(last + 1 if last < 2**63 - 1 else ids[0].as_py() - 1)


def items_of(table: pa.Table) -> Any:
    """Return items with their scores, best first."""
    return table.select(["item_id", "score"]).to_pylist()
