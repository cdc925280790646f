"""Everything that a service may call: run by `test_machine` in a process that may not compile anything."""

import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

import fastmf
from fastmf.cli import main
from fastmf_kernels import _jit

METRICS = ("rmse", "mae", "ndcg", "recall", "precision", "map", "mrr", "hit_rate", "auc", "coverage")
OF_USERS = tuple(name for name, metric in fastmf.metrics.METRICS.items() if metric.has_users)


def models() -> Iterator[Any]:
    for n_factors in (8, 64):
        for settings in ({}, {"rating_range": (1, 5)}, {"adaptive": False, "biases": False}, {"loss": "logistic"}):
            yield fastmf.SGD(n_factors=n_factors, n_epochs=1, **settings)
        yield fastmf.SVDpp(n_factors=n_factors, n_epochs=1)
        yield fastmf.BPR(n_factors=n_factors, n_epochs=1)
    solvers = (("cholesky", False), ("cg", False), ("subspace", False), ("cholesky", True))
    for (solver, nonnegative), n_factors in itertools.product(solvers, (3, 40)):
        settings = {"solver": solver, "nonnegative": nonnegative, "n_factors": n_factors, "n_epochs": 1}
        for biases in (True, False):
            yield fastmf.ALS(biases=biases, **settings)
        for weighting in ("rendle", "hu"):
            yield fastmf.ImplicitALS(weighting=weighting, **settings)


def ask(model: Any, test: fastmf.Interactions) -> None:
    users, items = test.user_ids.to_pylist(), test.item_ids.to_pylist()
    model.predict(users[:5], items[:5])
    model.predict(users[0], items[0])
    each = {users[0]: items[:3], users[1]: items[2:9]}
    for asked in (None, users[:1], users[:3]):
        for exclude, allow, deny in itertools.product(("seen", None, test), (None, items[:9]), (None, items[:4])):
            model.recommend(asked, k=5, exclude=exclude, allow=allow, deny=deny)
        model.recommend(asked, k=len(items))
    model.recommend(k=5, allow=each)
    for asked in (None, users[:1]):
        model.recommend(asked, k=5, rerank=fastmf.Reranking(diversify=0.3, explore=0.1, n_candidates=9))
    fastmf.rerank(model.recommend(k=5), 3)
    model.recommend(k=5, deny=each)
    model.recommend(users[:2], k=5, allow=dict.fromkeys(users[:2], items), deny=each)
    for people in (test, test.take(np.flatnonzero(test.users == 0))):
        for side in ("user", "item"):
            model.fold_in(people, side=side)
        for exclude, cold in itertools.product(("seen", None, test), ("skip", "popular")):
            model.recommend_for(people, k=3, exclude=exclude, cold=cold, deny=items[:2])
    model.similar_items(items[:2], 3)
    model.similar_users(users[:2], 3)
    for measure in ("cosine", "dot", "euclidean"):
        model.similar_items(items[:9], 3, measure=measure, deny=items[-1:])
        model.similar_items(vector=model.item_factors[:2], k=3, measure=measure, allow=items[:9])
        fastmf.analogy(model, items[:2], items[2:3], 3, measure=measure)
    for asked, exclude in itertools.product((None, items[:2]), ("seen", None, test)):
        model.users_for_item(asked, k=5, exclude=exclude, deny=users[:2])
    model.explain(users[0], items[0]).to_text()
    model.explain(users[1], items[1], interactions=test)
    fastmf.onboarding(model, 3, deny=items[:2], answered=items[2:4])
    fastmf.onboarding(model, 3, deny=items[:2], answered=items[2:4], asked=items[4:5])
    fastmf.evaluate(model, test, k=(3, 5), metrics=METRICS)
    fastmf.evaluate(model, test, exclude=None)
    fastmf.evaluate(model, test, among=dict.fromkeys(users, items), k=3, metrics=OF_USERS, per_user=True)
    fastmf.evaluate(model, test, k=3, metrics=OF_USERS, ci=0.9)
    fastmf.compare(model, model, test, k=3)


def ask_a_recommender(model: Any, test: fastmf.Interactions) -> None:
    users, items = test.user_ids.to_pylist(), test.item_ids.to_pylist()
    recommender = fastmf.Recommender(model, filters={"some": items[:9]})
    recommender.warmup(k=3)
    for filters, allow, deny in itertools.product(((), "some", "not some"), (None, items[:9]), (None, items[:4])):
        recommender.recommend([*users[:2], users[0] * 7], k=3, filters=filters, allow=allow, deny=deny)
    recommender.recommend(users, k=3, deny=items[:4])
    recommender.recommend_for(test, k=3, filters="some")
    recommender.similar_items(items[:2], 3)
    recommender.predict(users * 30, (items * 300)[: 30 * len(users)])
    recommender.swap(model)


def save_and_ask(model: Any, test: fastmf.Interactions) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model")
        model.recommend_to_parquet(f"{folder}/recs.parquet", k=3)
        model.recommend_to_parquet(f"{folder}/newcomers.parquet", k=3, interactions=test)
        for n_threads in (None, 1):
            ask(fastmf.load(f"{folder}/model").set_params(n_threads=n_threads), test)
        fastmf.load(f"{folder}/model").partial_fit(test, validation=test)
        ask_a_recommender(fastmf.load(f"{folder}/model"), test)


def ask_plain_arrays() -> None:
    """Top-k of arrays as services have them: of other types, not contiguous, not to be written to."""
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(300, 20)).astype(np.float32), rng.normal(size=(500, 20)).astype(np.float32)
    exclude = np.arange(301) * 2, np.tile(np.array([3, 7], np.int32), 300)
    for is_writable in (True, False):
        for array in (queries, items, *exclude):
            array.flags.writeable = is_writable
        some = (
            queries,
            queries[:1],
            queries[0],
            queries[:20],
            queries[:4].astype(float),
            queries[::2],
            queries.T[:, :9].T,
        )
        for index in (items, *(fastmf.index_items(items, pruning=pruning) for pruning in (True, False))):
            for asked, n_threads, k in itertools.product(some, (None, 1), (1, 10, 500)):
                fastmf.top_k(np.asfortranarray(asked), index, k, n_threads=n_threads)
                fastmf.top_k(asked, index, k, n_threads=n_threads)
            fastmf.top_k(queries, index, 5, exclude=exclude)


def ask_features() -> None:
    """Features of both forms, and what is computed from them."""
    rows = {"item_id": [3, 1, 2], "year": [1990, None, 2000], "genre": ["a|b", "a", None]}
    films = fastmf.Features.from_arrow(pa.table(rows))
    tags = fastmf.Features.from_arrow(pa.table({"item_id": [1, 4], "tag": ["x", "y"]}), feature="tag")
    both = films.join(tags)
    both.rows_for([4, 9])
    both.take([4, 2])
    both.in_columns(["tag=x", "year"])
    fastmf.LinearMap().fit(films, [1.0, 2.0, 3.0]).predict(films)


def run_commands(ratings: str, test: str) -> None:
    for number, model in enumerate(("sgd", "als", "implicit-als", "svdpp", "bpr")):
        train = ["train", ratings, "--model", model, "--output", model, "--epochs", "1", "--quiet", "--threads"]
        assert main([*train, str(1 + number % 2)]) == 0
        assert main(["recommend", model, "--output", f"{model}.parquet", "--quiet"]) == 0
        assert main(["evaluate", model, test, "--quiet"]) == 0
        assert main(["compare", model, model, test, "--quiet"]) == 0
        assert main(["similar", model, "--item", "film-001", "--quiet"]) == 0
        assert main(["users", model, "--output", f"{model}-users.parquet", "--quiet"]) == 0
        assert main(["explain", model, "--user", "user-0001", "--item", "film-001", "--quiet"]) == 0
        assert main(["onboarding", model, "--quiet"]) == 0


_names: list[str] = []
_save = _jit._KernelCache.save_overload


def _note(self: Any, signature: Any, compiled: Any) -> None:
    _names.append(f"{self._function.__module__}.{self._function.__name__}{signature}")
    _save(self, signature, compiled)


_jit._KernelCache.save_overload = _note  # type: ignore[method-assign]
train, test = (fastmf.read_parquet(path) for path in sys.argv[1:])
for fitted in models():
    save_and_ask(fitted.fit(train, validation=test), test)
ask_plain_arrays()
ask_features()
fastmf.Interactions.from_scipy(sparse.random(50, 40, 0.1, format="csr", dtype=np.float32))
for split in (fastmf.split.random, fastmf.split.per_user):
    split(train, test_fraction=0.2, seed=0)
fastmf.split.k_fold(train, n_folds=3, seed=0)
run_commands(*sys.argv[1:])
assert Path("sgd").is_dir()
print(*_names, sep="\n", file=sys.stderr)
sys.exit(bool(_jit.compilations().compiled))
