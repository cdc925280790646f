"""Models in searches, pipelines and scorers of scikit-learn."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fastmf
from fastmf.errors import DataError, ParameterError

selection = pytest.importorskip("sklearn.model_selection")
base = pytest.importorskip("sklearn.base")
checks = pytest.importorskip("sklearn.utils.estimator_checks")
pipeline = pytest.importorskip("sklearn.pipeline")
exceptions = pytest.importorskip("sklearn.exceptions")
adapter = pytest.importorskip("fastmf.sklearn")

SMALL = {"n_factors": 2, "n_epochs": 2, "n_threads": 1}
REGRESSOR, RANKER = adapter.RatingRegressor(fastmf.ALS(**SMALL)), adapter.ItemRanker(fastmf.ImplicitALS(**SMALL))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return fastmf.testing.film_club(n_users=40, n_items=20, mean_ratings=10).to_arrow()


@pytest.fixture(scope="module")
def pairs(table: pa.Table) -> Any:
    return np.stack([table["user_id"].to_pylist(), table["item_id"].to_pylist()], axis=1)


@pytest.fixture(scope="module")
def ratings(table: pa.Table) -> Any:
    return table["rating"].to_numpy()


def as_pandas(table: pa.Table) -> Any:
    pytest.importorskip("pandas")
    return table.to_pandas()


def as_polars(table: pa.Table) -> Any:
    return pytest.importorskip("polars").from_arrow(table)


def as_tuples(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def as_objects(table: pa.Table) -> Any:
    return np.array(as_tuples(table), dtype=object)


KINDS = (pa.Table.to_batches, as_pandas, as_polars, as_tuples, as_objects, lambda table: table)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("numbered", [True, False], ids=["numbers", "names"])
def test_pairs_of_every_kind_train_the_model_itself(kind: Any, numbered: bool, table: pa.Table) -> None:
    if numbered:
        users = pa.array(np.unique(table["user_id"].to_pylist(), return_inverse=True)[1])
        table = table.set_column(0, "user_id", users)
    pairs = kind(table.select(["user_id", "item_id"]).rename_columns(["who", "what"]))
    pairs = pairs[0] if kind is pa.Table.to_batches else pairs

    fitted = base.clone(REGRESSOR).fit(pairs, table["rating"])

    expected = fastmf.ALS(**SMALL).fit(table)
    assert np.array_equal(fitted.model_.user_factors, expected.user_factors)
    assert np.array_equal(fitted.predict(pairs), expected.predict(table["user_id"], table["item_id"]))
    assert fitted.n_features_in_ == 2


def test_the_third_column_is_a_time(table: pa.Table) -> None:
    times = pa.array(range(len(table)))
    popularity = fastmf.Popularity(half_life=1e-3)
    timed = table.append_column("when", times)

    fitted = adapter.ItemRanker(popularity).fit(timed.select(["user_id", "item_id", "when"]), table["rating"])

    assert fitted.n_features_in_ == 3
    expected = popularity.fit(fastmf.Interactions.from_arrow(timed, timestamp="when"))
    assert fitted.model_.predict("user-001", "film-001") == expected.predict("user-001", "film-001")
    assert np.array_equal(fitted.model_.item_biases, expected.item_biases)


def test_a_grid_search_reaches_the_parameters_of_the_model(pairs: Any, ratings: Any) -> None:
    grid = {"model__n_factors": [1, 3], "model__regularization": [0.01, 0.1]}

    for scoring in (None, "neg_root_mean_squared_error"):
        search = selection.GridSearchCV(REGRESSOR, grid, cv=3, scoring=scoring, error_score="raise").fit(pairs, ratings)

    assert set(search.best_params_) == set(grid)
    assert search.best_estimator_.model_.n_factors == search.best_params_["model__n_factors"]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert -2 < search.best_score_ < 0
    assert REGRESSOR.model.n_factors == 2
    assert not hasattr(REGRESSOR, "model_")


def test_a_score_is_that_of_scikit_learn(pairs: Any, ratings: Any) -> None:
    fitted = base.clone(REGRESSOR).fit(pairs, ratings)

    error = fastmf.metrics.rmse(ratings, fitted.predict(pairs))

    assert fitted.score(pairs, ratings) == pytest.approx(1 - error**2 / np.var(ratings), abs=1e-5)


def test_a_random_search_of_an_implicit_model_needs_no_targets(pairs: Any) -> None:
    search = selection.RandomizedSearchCV(
        RANKER, {"model__n_factors": [1, 2, 3, 4]}, n_iter=2, cv=2, random_state=0, error_score="raise"
    )

    search.fit(pairs)

    assert 0 < search.best_score_ <= 1
    expected = fastmf.ImplicitALS(**SMALL | {"n_factors": search.best_params_["model__n_factors"]})
    assert np.array_equal(search.predict(pairs), expected.fit(arrays(pairs)).predict(pairs[:, 0], pairs[:, 1]))


def arrays(pairs: Any) -> fastmf.Interactions:
    return fastmf.Interactions.from_arrays(pairs[:, 0], pairs[:, 1])


@pytest.mark.parametrize("model", [fastmf.ImplicitALS(**SMALL), fastmf.BPR(**SMALL), fastmf.SGD(**SMALL)])
def test_a_search_takes_models_as_they_are(model: Any, table: pa.Table) -> None:
    search = selection.GridSearchCV(model, {"n_factors": [1, 3]}, cv=2, error_score="raise").fit(table)

    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("model", [fastmf.ALS(**SMALL), fastmf.Popularity()])
def test_a_model_says_who_takes_ratings_apart_from_pairs(model: Any, pairs: Any, ratings: Any) -> None:
    for fit in (model.fit, selection.GridSearchCV(model, {"seed": [0]}, cv=2, error_score="raise").fit):
        with pytest.raises(ParameterError, match=r"pairs and ratings apart; fastmf\.sklearn\.RatingRegressor takes"):
            fit(pairs, ratings)


def test_ids_that_a_fold_has_not_seen_are_predicted_by_what_is_known(ratings: Any, pairs: Any) -> None:
    is_known = pairs[:, 0] != "user-001"
    fitted = base.clone(REGRESSOR).fit(pairs[is_known], ratings[is_known])

    predicted = fitted.predict([("user-001", "film-001"), ("nobody", "nothing")])

    model = fitted.model_
    assert predicted[1] == np.float32(model.global_mean)
    item = model.item_ids.to_pylist().index("film-001")
    assert predicted[0] == pytest.approx(model.global_mean + model.item_biases[item])
    # Folds by user: no user of a test part is in its training part.
    scores = selection.cross_val_score(
        REGRESSOR, pairs, ratings, groups=pairs[:, 0], cv=selection.GroupKFold(2), error_score="raise"
    )
    assert np.isfinite(scores).all()


def test_a_pipeline_ends_in_a_model(pairs: Any, ratings: Any) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    lower = preprocessing.FunctionTransformer(np.strings.lower)
    steps = pipeline.Pipeline([("lower", lower), ("rate", base.clone(REGRESSOR))]).set_params(rate__model__n_factors=3)

    steps.fit(np.strings.upper(pairs), ratings)

    assert steps.named_steps["rate"].model_.n_factors == 3
    assert np.array_equal(steps.predict(pairs), steps.predict(np.strings.upper(pairs)))


def test_repeated_pairs_are_refused_unless_told_otherwise(pairs: Any, ratings: Any) -> None:
    twice, of_both = np.concatenate([pairs, pairs]), np.concatenate([ratings, ratings])

    with pytest.raises(DataError, match="292 ratings repeat a"):
        base.clone(REGRESSOR).fit(twice, of_both)
    fitted = base.clone(REGRESSOR).set_params(duplicates="mean").fit(twice, of_both)

    assert np.array_equal(fitted.predict(pairs), base.clone(REGRESSOR).fit(pairs, ratings).predict(pairs))


def test_a_fitted_estimator_survives_pickling_and_cloning_forgets(pairs: Any, ratings: Any) -> None:
    fitted = base.clone(REGRESSOR).fit(pairs, ratings)

    copy = pickle.loads(pickle.dumps(fitted))

    assert np.array_equal(copy.predict(pairs), fitted.predict(pairs))
    assert not hasattr(base.clone(fitted), "model_")


OF_SCIKIT_LEARN = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("estimator", [REGRESSOR, RANKER], ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize("name", OF_SCIKIT_LEARN)
def test_checks_of_scikit_learn(name: str, estimator: Any) -> None:
    """Those that do not fit: the others do so to matrices of floats, which are no pairs of ids."""
    check = getattr(checks, name, None)
    if check is None:
        pytest.skip(f"this version of scikit-learn has no {name}")

    check(type(estimator).__name__, base.clone(estimator))


def test_the_kinds_of_estimators_are_told_apart() -> None:
    assert base.is_regressor(REGRESSOR)
    assert not base.is_regressor(RANKER)


@pytest.mark.parametrize(
    ("estimator", "X", "error", "complaint"),
    [
        (REGRESSOR, [(1,)], DataError, "X has 1 columns; expected two"),
        (REGRESSOR, [(1, 2, 3, 4)], DataError, "X has 4 columns; expected two"),
        (REGRESSOR, [(1, 2), (3,)], DataError, "X has 1 dimension; expected rows"),
        (REGRESSOR, [1, 2], DataError, "X is a list; expected rows of a user id and an item id"),
        (REGRESSOR, np.ones((2, 2)), DataError, "column 'users' has type double"),
        (adapter.RatingRegressor(fastmf.BPR()), [(1, 2)], ParameterError, r"BPR\(\); expected a model of ratings"),
        (adapter.ItemRanker(fastmf.ALS()), [(1, 2)], ParameterError, r"ALS\(\); expected an implicit model"),
        (adapter.ItemRanker(fastmf.ALS), [(1, 2)], ParameterError, "model is a ABCMeta; expected an implicit model"),
        (adapter.ItemRanker(None), [(1, 2)], ParameterError, "model is a NoneType; expected an implicit model"),
    ],
)
def test_what_makes_no_sense(estimator: Any, X: Any, error: type[Exception], complaint: str) -> None:  # noqa: N803
    with pytest.raises(error, match=complaint):
        estimator.fit(X, np.ones(len(X)))


def test_ratings_of_another_number(pairs: Any, ratings: Any) -> None:
    with pytest.raises(DataError, match="the arrays differ in length"):
        REGRESSOR.fit(pairs, ratings[1:])


@pytest.mark.parametrize("estimator", [REGRESSOR, RANKER], ids=lambda estimator: type(estimator).__name__)
def test_before_fit_there_is_nothing_to_predict_or_score(estimator: Any) -> None:
    for call in (estimator.predict, estimator.score):
        with pytest.raises(exceptions.NotFittedError):
            call([("ann", "tea")], *([[1.0]] if call == estimator.score else []))


def test_without_scikit_learn_the_import_says_what_to_install() -> None:
    script = "import sys; sys.modules['sklearn'] = None; import fastmf; print(fastmf.SGD()); import fastmf.sklearn"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.stdout
    assert done.stderr.splitlines()[-1].startswith("ImportError: fastmf.sklearn needs scikit-learn")
    assert 'pip install "fastmf[sklearn]"' in done.stderr
