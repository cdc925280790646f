"""The models: parameters, the fit loop, and problems whose answer is known."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

import fastmf
from fastmf import ALS, BPR, SGD, ImplicitALS, Interactions, SVDpp, testing
from fastmf.errors import BackendError, DataError, DivergenceError, FastMFError, NotFittedError, ParameterError
from fastmf.models import FACTOR_MODELS, FactorModel
from fastmf.models import MODELS as REGISTRY

Model = SGD | SVDpp | BPR | ALS | ImplicitALS
FloatArray = npt.NDArray[np.float64]

MODELS = [*FACTOR_MODELS.values()]
each_factor_model = pytest.mark.parametrize("kind", MODELS)
each_model = pytest.mark.parametrize("kind", REGISTRY.values())


def small_ratings(seed: int = 0) -> Interactions:
    return testing.power_law(60, 40, 700, n_factors=3, seed=seed)


def make(kind: type[Any], **params: Any) -> Any:
    """Return a model with those of the parameters that its class has."""
    return kind(**{name: value for name, value in params.items() if hasattr(kind, name)})


def arrays(model: FactorModel) -> tuple[bytes, ...]:
    """Everything that a fit leaves behind, bit for bit."""
    terms = (model.user_factors, model.item_factors, model.user_biases, model.item_biases)
    return (*(term.tobytes() for term in terms), np.float64(model.global_mean).tobytes())


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


BAD_PARAMETERS: list[tuple[type[Model], str, Any, str]] = [
    *[
        (kind, name, value, message)
        for kind in MODELS
        for name, value, message in [
            ("n_factors", 0, "n_factors is 0; expected an integer of at least 1"),
            ("n_factors", 2.0, "n_factors is 2.0; expected an integer of at least 1"),
            ("n_epochs", -1, "n_epochs is -1; expected an integer of at least 1"),
            ("n_epochs", True, "n_epochs is True; expected an integer of at least 1"),
            ("regularization", -0.1, "regularization is -0.1; expected a finite number of at least 0"),
            ("regularization", math.inf, "regularization is inf; expected a finite number of at least 0"),
            ("regularization", "0.1", "regularization is '0.1'; expected a finite number of at least 0"),
            ("regularization", True, "regularization is True; expected a finite number of at least 0"),
            ("seed", -1, "seed is -1; expected an integer of at least 0"),
            ("seed", None, "seed is None; expected an integer of at least 0"),
            ("backend", "gpu", "backend is 'gpu'; expected one of 'cpu', 'reference', 'cuda'"),
            ("patience", 0, "patience is 0; expected an integer of at least 1, or None to run all epochs"),
            ("n_threads", -1, "n_threads is -1; expected an integer of at least 1, or None for all cores"),
            ("n_threads", 0, "n_threads is 0; expected an integer of at least 1, or None for all cores"),
            ("n_threads", 1.5, "n_threads is 1.5; expected an integer of at least 1, or None for all cores"),
            ("init_scale", -1, "init_scale is -1; expected a finite number of at least 0"),
        ]
        if hasattr(kind, name)
    ],
    *[
        (kind, name, value, message)
        for kind in (ALS, ImplicitALS)
        for name, value, message in [
            ("solver", "qr", "solver is 'qr'; expected one of 'cholesky', 'cg', 'subspace'"),
            ("cg_steps", 0, "cg_steps is 0; expected an integer of at least 1"),
            ("block_size", 0, "block_size is 0; expected an integer of at least 1"),
            ("nonnegative", "no", "nonnegative is 'no'; expected True or False"),
        ]
    ],
    (SGD, "loss", "hinge", "loss is 'hinge'; expected one of 'squared', 'logistic'"),
    (SGD, "n_negatives", 0, "n_negatives is 0; expected an integer of at least 1"),
    (BPR, "n_negatives", 1.5, "n_negatives is 1.5; expected an integer of at least 1"),
    (SGD, "learning_rate", 0, "learning_rate is 0; expected a finite number above 0"),
    (SGD, "learning_rate", math.nan, "learning_rate is nan; expected a finite number above 0"),
    (SGD, "learning_rate_decay", 0, "learning_rate_decay is 0; expected a finite number above 0"),
    (SGD, "learning_rate_decay", 1.1, "learning_rate_decay is 1.1; expected at most 1"),
    (SGD, "bias_learning_rate", -1, "bias_learning_rate is -1; expected a finite number of at least 0"),
    (SGD, "item_regularization", "1", "item_regularization is '1'; expected a finite number of at least 0"),
    (SGD, "item_bias_regularization", math.nan, "item_bias_regularization is nan; expected a finite number of at"),
    (SGD, "adaptive", "yes", "adaptive is 'yes'; expected True or False"),
    (SGD, "regularization_scaling", "n", "regularization_scaling is 'n'; expected one of 'count', 'root', 'none'"),
    (SGD, "bias_regularization", -1, "bias_regularization is -1; expected a finite number of at least 0"),
    (SGD, "rating_range", (5, 1), "rating_range is (5, 1); expected None or (low, high) with low < high"),
    (SGD, "rating_range", (1, 1), "rating_range is (1, 1); expected None or (low, high) with low < high"),
    (SGD, "rating_range", (1, 2, 3), "rating_range is (1, 2, 3); expected None or (low, high) with low < high"),
    (SGD, "rating_range", 5, "rating_range is 5; expected None or (low, high) with low < high"),
    (SGD, "rating_range", (1, math.inf), "each end of rating_range is inf; expected a finite number"),
    (SGD, "rating_range", ("1", "5"), "each end of rating_range is '1'; expected a finite number"),
    (SVDpp, "implicit_learning_rate", -1, "implicit_learning_rate is -1; expected a finite number of at least 0"),
    (SVDpp, "implicit_regularization", -1, "implicit_regularization is -1; expected a finite number of at least 0"),
    (SVDpp, "rating_range", (5, 1), "rating_range is (5, 1); expected None or (low, high) with low < high"),
    (ALS, "regularization_scaling", "n", "regularization_scaling is 'n'; expected one of 'count', 'root', 'none'"),
    (ALS, "bias_regularization", -1, 'bias_regularization is -1; expected a finite number of at least 0, or "auto"'),
    (
        ALS,
        "bias_regularization",
        0,
        "regularization is 'auto' and bias_regularization 0; expected both above 0",
    ),
    (
        ALS,
        "item_bias_regularization",
        "auto",
        "item_bias_regularization is 'auto'; expected a finite number",
    ),
    (ALS, "biases", "no", "biases is 'no'; expected True or False"),
    (ALS, "biases", 2, "biases is 2; expected True or False"),
    (ALS, "solver", "magic", "solver is 'magic'; expected one of 'cholesky'"),
    (ImplicitALS, "solver", "magic", "solver is 'magic'; expected one of 'cholesky'"),
    (ImplicitALS, "weighting", "bpr", "weighting is 'bpr'; expected one of 'rendle', 'hu'"),
    (ImplicitALS, "unobserved_weight", -1, "unobserved_weight is -1; expected a finite number of at least 0"),
    (ImplicitALS, "alpha", 0, "alpha is 0; expected a finite number above 0"),
    (ImplicitALS, "regularization_exponent", -1, "regularization_exponent is -1; expected a finite number of at"),
]


@pytest.mark.parametrize(("kind", "name", "value", "message"), BAD_PARAMETERS)
def test_a_bad_parameter_is_refused_by_the_constructor_and_by_set_params(
    kind: type[Model], name: str, value: Any, message: str
) -> None:
    model = kind(n_epochs=7)
    before = model.get_params()

    for attempt in (lambda: kind(**{name: value}), lambda: model.set_params(verbose=True, **{name: value})):
        with pytest.raises(ParameterError) as error:
            attempt()
        assert message in str(error.value)
    assert model.get_params() == before  # verbose too, though there was nothing wrong with it


@each_model
def test_parameters_are_keyword_only(kind: type[Model]) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        kind(8)


@each_factor_model
def test_get_params_makes_an_equal_model(kind: type[Model]) -> None:
    model = kind(n_factors=3, seed=5, regularization=0.5, n_threads=1)

    params = model.get_params()

    assert params["n_factors"] == 3
    assert not {"history", "_fitted"} & params.keys()
    assert kind(**params).get_params() == params


@each_factor_model
def test_set_params_takes_effect_at_the_next_fit(kind: type[Model]) -> None:
    model = kind(n_factors=2, n_epochs=1).fit(small_ratings())

    assert model.set_params(n_factors=3) is model
    assert model.user_factors.shape[1] == 2
    assert model.fit(small_ratings()).user_factors.shape[1] == 3


@each_factor_model
def test_set_params_names_the_parameters_there_are(kind: type[Model]) -> None:
    model = kind()

    with pytest.raises(ParameterError, match=f"{kind.__name__} has no parameter 'factors'; it has n_factors, n_epochs"):
        model.set_params(n_epochs=3, factors=8)
    assert model.n_epochs == kind().n_epochs


def test_numbers_of_numpy_are_numbers() -> None:
    model = SGD(n_factors=np.int64(2), regularization=np.float32(0.5), rating_range=(np.float32(0.5), np.int8(5)))

    assert model.fit(testing.power_law(20, 20, 100)).user_factors.shape == (20, 2)


@each_factor_model
def test_repr_shows_the_parameters_and_not_the_data(kind: type[Model]) -> None:
    model = kind(n_factors=2, n_epochs=1).fit(small_ratings())

    assert repr(model).startswith(f"{kind.__name__}(n_factors=2, n_epochs=1, ")
    assert "history" not in repr(model)


@each_factor_model
def test_fit_returns_the_model_with_float32_factors_of_the_id_space(kind: type[Model]) -> None:
    ratings = small_ratings()
    model = kind(n_factors=5, n_epochs=2)

    assert model.fit(ratings) is model
    for array, shape in [
        (model.user_factors, (60, 5)),
        (model.item_factors, (40, 5)),
        (model.user_biases, (60,)),
        (model.item_biases, (40,)),
    ]:
        assert array.shape == shape
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
    assert model.user_ids is ratings.user_ids
    assert model.item_ids is ratings.item_ids


@each_factor_model
def test_history_has_one_record_an_epoch(kind: type[Model]) -> None:
    model = kind(n_factors=2, n_epochs=3).fit(small_ratings())

    assert [record["epoch"] for record in model.history] == [1, 2, 3]
    own = {BPR: {"train_auc"}, ALS: {"train_rmse", "objective"}, ImplicitALS: {"objective"}}
    figures = own.get(kind, {"train_rmse"})
    for record in model.history:
        assert record.keys() == {"epoch", "seconds"} | figures
        assert record["seconds"] >= 0
    model.fit(small_ratings())
    assert len(model.history) == 3


@pytest.mark.parametrize("kind", [kind for kind in MODELS if hasattr(kind, "biases")])
@pytest.mark.parametrize("biases", [True, False])
def test_models_without_biases_have_zeros_for_them(kind: type[Model], biases: bool) -> None:
    model = kind(n_factors=2, n_epochs=2, biases=biases).fit(small_ratings())

    assert bool(np.any(model.item_biases)) == biases
    # In BPR everything that is the same for all items of a user cancels.
    assert bool(np.any(model.user_biases)) == (model.global_mean != 0) == (biases and kind is not BPR)


def test_implicit_als_has_no_biases() -> None:
    model = ImplicitALS(n_factors=2, n_epochs=2).fit(small_ratings())

    assert not np.any(model.item_biases)
    assert not np.any(model.user_biases)
    assert model.global_mean == 0


@each_model
def test_a_sparse_matrix_is_as_good_as_interactions(kind: type[Model]) -> None:
    ratings = small_ratings()

    assert arrays(make(kind, n_epochs=2).fit(ratings.to_scipy())) == arrays(make(kind, n_epochs=2).fit(ratings))


@each_factor_model
def test_predict_is_the_sum_of_its_terms(kind: type[Model]) -> None:
    ratings = Interactions.from_arrays(["a", "a", "b", "c"], [5, 7, 5, 9], [4, 3, 5, 1])
    model = kind(n_factors=2, n_epochs=3).fit(ratings)
    mu, b, p, q = model.global_mean, (model.user_biases, model.item_biases), model.user_factors, model.item_factors

    predictions = model.predict(["c", "a", "?", "b", "?"], [5, 9, 7, 6, 6])

    expected = [
        mu + b[0][2] + b[1][0] + p[2] @ q[0],
        mu + b[0][0] + b[1][2] + p[0] @ q[2],
        mu + b[1][1],  # an unknown user: the mean and the item's bias
        mu + b[0][1],  # an unknown item: the mean and the user's bias
        mu,
    ]
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions, expected, rtol=1e-5, atol=1e-6)
    if kind is ImplicitALS:
        assert predictions[2:].tolist() == [0, 0, 0]


@each_model
def test_predict_takes_one_pair(kind: type[Model]) -> None:
    ratings = Interactions.from_arrays(["ann", "bob"], ["x", "y"], [4, 3])
    model = make(kind, n_factors=2, n_epochs=1).fit(ratings)

    assert model.predict("ann", "y").tolist() == model.predict(["ann"], ["y"]).tolist()


@each_model
def test_predict_refuses_lists_of_different_length(kind: type[Model]) -> None:
    model = make(kind, n_factors=2, n_epochs=1).fit(small_ratings())

    with pytest.raises(DataError, match="got 2 user ids and 1 item ids; expected as many of each"):
        model.predict([1, 2], [1])


SOLVERS: dict[str, dict[str, Any]] = {
    "cg": {"solver": "cg"},
    "subspace": {"solver": "subspace", "block_size": 16},
    "nonnegative": {"nonnegative": True},
}
VARIANTS: list[Any] = [
    pytest.param(lambda **kw: SGD(**kw), id="SGD"),
    pytest.param(lambda **kw: SGD(biases=False, **kw), id="SGD without biases"),
    pytest.param(lambda **kw: SGD(rating_range=(0.5, 5), **kw), id="SGD with a range"),
    pytest.param(lambda **kw: SGD(loss="logistic", **kw), id="SGD of what was chosen"),
    pytest.param(lambda **kw: SGD(regularization_scaling="none", adaptive=False, **kw), id="SGD, constant steps"),
    pytest.param(lambda **kw: BPR(**kw), id="BPR"),
    pytest.param(lambda **kw: BPR(biases=False, n_negatives=3, **kw), id="BPR without biases"),
    pytest.param(lambda **kw: SVDpp(**kw), id="SVDpp"),
    pytest.param(lambda **kw: SVDpp(biases=False, **kw), id="SVDpp without biases"),
    pytest.param(lambda **kw: SVDpp(rating_range=(0.5, 5), **kw), id="SVDpp with a range"),
    pytest.param(lambda **kw: ALS(**kw), id="ALS"),
    pytest.param(lambda **kw: ALS(biases=False, regularization_scaling="none", **kw), id="ALS without biases"),
    pytest.param(lambda **kw: ImplicitALS(**kw), id="ImplicitALS"),
    pytest.param(lambda **kw: ImplicitALS(alpha=2.0, regularization_exponent=0.5, **kw), id="ImplicitALS with alpha"),
    pytest.param(lambda **kw: ImplicitALS(weighting="hu", alpha=3.0, **kw), id="ImplicitALS of Hu"),
    *[
        pytest.param(functools.partial(kind, **settings), id=f"{kind.__name__}, {name}")
        for kind in (ALS, ImplicitALS)
        for name, settings in SOLVERS.items()
    ],
]
each_variant = pytest.mark.parametrize("make", VARIANTS)
Make = Callable[..., Model]


@each_variant
def test_the_cpu_gives_what_the_reference_gives(make: Make) -> None:
    ratings = small_ratings()
    cpu, reference = (make(n_factors=4, n_epochs=3, backend=name).fit(ratings) for name in ("cpu", "reference"))

    for name in ("user_factors", "item_factors", "user_biases", "item_biases"):
        np.testing.assert_allclose(getattr(cpu, name), getattr(reference, name), rtol=2e-3, atol=2e-4, err_msg=name)
    for a, b in zip(timeless(cpu.history), timeless(reference.history), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    pairs = ratings.users[:50], ratings.items[:50]
    np.testing.assert_allclose(cpu.predict(*pairs), reference.predict(*pairs), rtol=1e-3, atol=1e-3)


@each_variant
def test_threads_do_not_change_a_bit(make: Make) -> None:
    ratings = testing.power_law(400, 150, 12_000, seed=3)  # enough for SGD to cut the table into blocks

    one, two, two_again = (
        make(n_factors=8, n_epochs=3, seed=4, n_threads=n_threads).fit(ratings) for n_threads in (1, 2, 2)
    )

    assert arrays(one) == arrays(two) == arrays(two_again)
    assert timeless(one.history) == timeless(two.history)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if hasattr(kind, "init_scale")])
def test_another_seed_gives_other_factors(kind: type[Model]) -> None:
    fits = [kind(n_factors=4, n_epochs=1, seed=seed).fit(small_ratings()) for seed in (0, 1)]

    assert arrays(fits[0]) != arrays(fits[1])


@each_model
def test_the_order_of_the_rows_does_not_matter(kind: type[Model]) -> None:
    ratings = small_ratings()
    shuffled = ratings.take(np.random.default_rng(1).permutation(ratings.n_ratings))

    assert arrays(make(kind, n_epochs=2).fit(ratings)) == arrays(make(kind, n_epochs=2).fit(shuffled))


@each_model
def test_fitting_again_starts_anew(kind: type[Model]) -> None:
    model = make(kind, n_factors=4, n_epochs=2).fit(small_ratings(seed=9))

    assert arrays(model.fit(small_ratings())) == arrays(make(kind, n_factors=4, n_epochs=2).fit(small_ratings()))


@each_model
def test_ids_are_carried_through(kind: type[Model]) -> None:
    # The same table under other names: sorted in the same order, the names change nothing.
    numbered = small_ratings()
    names = [f"user {n:03}" for n in range(60)]
    named = Interactions.from_arrays([names[u] for u in numbered.users], numbered.items, numbered.ratings)

    assert arrays(make(kind, n_epochs=2).fit(named)) == arrays(
        make(kind, n_epochs=2).fit(Interactions.from_arrays(numbered.users, numbered.items, numbered.ratings))
    )


def test_a_backend_that_is_not_there_says_so_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(BackendError, match=r'backend "cuda" .* cannot run here: .*; or use backend "cpu"'):
        ALS(backend="cuda").fit(small_ratings())


@pytest.mark.parametrize("parameters", [{"backend": "cpu"}, {"backend": "reference", "loss": "logistic"}])
def test_halves_are_for_gpus(parameters: dict[str, Any]) -> None:
    message = (
        'storage is "float16" with backend "(cpu|reference)" and loss "(squared|logistic)"; expected backend "cuda"'
    )
    with pytest.raises(ParameterError, match=message):
        SGD(storage="float16", **parameters).fit(small_ratings())


def test_halves_in_the_reference_come_to_the_same_error() -> None:
    ratings = fastmf.testing.low_rank(n_users=30, n_items=20, seed=0)
    whole, halves = (
        SGD(n_factors=4, n_epochs=5, backend="reference", storage=storage).fit(ratings)
        for storage in ("float32", "float16")
    )
    assert halves.history[-1]["train_rmse"] == pytest.approx(whole.history[-1]["train_rmse"], rel=1e-2)
    assert not np.array_equal(halves.user_factors, whole.user_factors)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            SGD(
                n_factors=2,
                n_epochs=200,
                regularization=0,
                bias_regularization=0,
                learning_rate=0.05,
                learning_rate_decay=0.99,
                adaptive=False,
                init_scale=0.5,
                n_threads=1,
            ),
            id="SGD",
        ),
        pytest.param(ALS(n_factors=2, n_epochs=50, regularization=1e-6, n_threads=1), id="ALS"),
        pytest.param(
            ALS(
                n_factors=3, n_epochs=50, regularization=1e-6, biases=False, n_threads=1
            ),  # one more factor does for the mean
            id="ALS without biases",
        ),
    ],
)
def test_planted_factors_are_found_again(model: Model) -> None:
    ratings = testing.low_rank(n_users=120, n_items=80, n_factors=2, density=0.4)
    train, test = fastmf.split.random(ratings, test_fraction=0.1, seed=0)

    model.fit(train, validation=test)

    assert test.ratings.std() > 0.5  # there is something to predict
    assert model.history[-1]["validation_rmse"] < 1e-3


def test_an_epoch_of_sgd_is_the_gradient_step_of_its_formula() -> None:
    # Two ratings without a user or an item in common: each epoch is one step for each, which can be taken by hand.
    ratings = Interactions.from_arrays([1, 2], [1, 2], [5.0, 1.0])
    steps = {"learning_rate": 0.1, "bias_learning_rate": 0.04, "learning_rate_decay": 0.5, "adaptive": False}
    strengths = {"regularization": 0.3, "item_regularization": 0.2, "bias_regularization": 0.7}
    before, after = (
        SGD(n_factors=3, n_epochs=n, init_scale=2, item_bias_regularization=0.6, **steps, **strengths).fit(ratings)
        for n in (1, 2)
    )

    mean, deviation = 3.0, 2.0
    rate, bias_rate = 0.1 * 0.5 / deviation, 0.04 * 0.5  # the second epoch has the smaller step
    of_user, of_item = (1 + rate * strength * deviation for strength in (0.3, 0.2))
    for n, rating in enumerate(ratings.ratings):
        p, q = before.user_factors[n], before.item_factors[n]
        b_u, b_i = before.user_biases[n], before.item_biases[n]
        error = rating - (mean + b_u + b_i + p @ q)
        np.testing.assert_allclose(after.user_factors[n], (p + rate * error * q) / of_user, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(after.item_factors[n], (q + rate * error * p) / of_item, rtol=1e-5, atol=1e-7)
        assert after.user_biases[n] == pytest.approx((b_u + bias_rate * error) / (1 + bias_rate * 0.7), rel=1e-5)
        assert after.item_biases[n] == pytest.approx((b_i + bias_rate * error) / (1 + bias_rate * 0.6), rel=1e-5)


def test_a_row_pays_its_regularization_once_or_for_every_rating() -> None:
    # User 1 has two ratings, item 1 one: with "none" each of them counts half for the user.
    ratings = Interactions.from_arrays([1, 1], [1, 2], [3.0, 3.0])
    settings = {"n_factors": 2, "biases": False, "adaptive": False, "learning_rate": 1e-4, "init_scale": 1}

    def shrinking(**strengths: Any) -> FloatArray:
        free = SGD(n_epochs=1, **settings, regularization=0).fit(ratings)
        damped = SGD(n_epochs=1, **settings, **strengths).fit(ratings)
        lost = np.vstack([free.user_factors, free.item_factors]) - np.vstack([damped.user_factors, damped.item_factors])
        return np.asarray(lost / np.vstack([free.user_factors, free.item_factors]) / 1e-4, np.float64)

    per_rating = shrinking(regularization=1.0, item_regularization=1.0)
    per_row = shrinking(regularization=1.0, item_regularization=1.0, regularization_scaling="none")

    np.testing.assert_allclose(per_rating, np.repeat([[2.0], [1.0], [1.0]], 2, axis=1), rtol=0.1)
    np.testing.assert_allclose(per_row, np.ones((3, 2)), rtol=0.1)


def test_the_sigmoid_of_a_rating_range_is_in_the_gradient() -> None:
    ratings = Interactions.from_arrays([1, 2], [1, 2], [5.0, 1.0])
    before, after = (
        SGD(
            n_factors=3,
            n_epochs=n,
            learning_rate=0.1,
            bias_learning_rate=0.1,
            regularization=0.05,
            bias_regularization=0.05,
            adaptive=False,
            rating_range=(1, 5),
        ).fit(ratings)
        for n in (1, 2)
    )

    for n, rating in enumerate(ratings.ratings):
        b_u, p, q = before.user_biases[n], before.user_factors[n], before.item_factors[n]
        sigmoid = 1 / (1 + np.exp(-(b_u + before.item_biases[n] + p @ q)))  # the mean, 3, is in the middle: μ = 0
        gradient = (rating - (1 + 4 * sigmoid)) * 4 * sigmoid * (1 - sigmoid)
        gradient /= 2**2  # the square of the ratings' deviation
        assert after.user_biases[n] == pytest.approx((b_u + 0.1 * gradient) / (1 + 0.1 * 0.05), rel=1e-5)
        expected = (p + 0.1 * gradient * q) / (1 + 0.1 * 0.05)
        np.testing.assert_allclose(after.user_factors[n], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "parameters",
    [
        {"weighting": "rendle"},
        {"weighting": "rendle", "alpha": 5.0},
        {"weighting": "rendle", "regularization_exponent": 0.0},
        {"weighting": "hu"},
        {"weighting": "hu", "alpha": 10.0},
    ],
    ids=str,
)
def test_the_item_held_out_of_a_checkerboard_is_recommended_first(parameters: dict[str, Any]) -> None:
    board = testing.checkerboard(20)  # two kinds of users and items: two factors say it all

    model = ImplicitALS(n_factors=2, n_epochs=10, **parameters).fit(board.ratings)

    assert model.recommend(k=1).items[:, 0].tolist() == board.held_out.tolist()


def weighted_ratings() -> Interactions:
    """Counts with 0 and dislikes among them, a user and an item without any, and some that are heavy."""
    rng = np.random.default_rng(5)
    observed = rng.random((30, 20)) < np.linspace(0, 0.8, 20)
    users, items = np.nonzero(observed)
    return testing.from_indices(users, items, rng.integers(-2, 6, len(users)), 31, 20)


def dense(ratings: Interactions) -> tuple[FloatArray, FloatArray]:
    r, observed = np.zeros((ratings.n_users, ratings.n_items)), np.zeros((ratings.n_users, ratings.n_items))
    r[ratings.users, ratings.items], observed[ratings.users, ratings.items] = ratings.ratings, 1
    return r, observed


def squares(factors: npt.NDArray[np.float32]) -> FloatArray:
    return np.asarray((factors.astype(np.float64) ** 2).sum(axis=1))


def implicit_objective(model: ImplicitALS, ratings: Interactions, p: npt.NDArray[np.float32]) -> float:
    """Evaluate the formula in the docstring of `ImplicitALS`, cell by cell."""
    (r, _), lam = dense(ratings), model.regularization
    preference, observed = (r > 0).astype(np.float64), (r != 0).astype(np.float64)
    r_hat = p.astype(np.float64) @ model.item_factors.T.astype(np.float64)
    penalties = squares(p), squares(model.item_factors)
    if model.weighting == "hu":
        c = 1 + (1 if model.alpha is None else model.alpha) * np.abs(r)
        return float((c * (preference - r_hat) ** 2).sum() + lam * sum(penalty.sum() for penalty in penalties))
    w = observed if model.alpha is None else model.alpha * np.abs(r)
    a0, nu = model.chosen.get("unobserved_weight", model.unobserved_weight), model.regularization_exponent
    n_users, n_items = observed.any(axis=1).sum(), observed.any(axis=0).sum()
    penalty = ((observed.sum(axis=1) + a0 * n_items) ** nu) @ penalties[0]
    penalty += ((observed.sum(axis=0) + a0 * n_users) ** nu) @ penalties[1]
    return float((w * (preference - r_hat) ** 2).sum() + a0 * (r_hat**2).sum() + lam * penalty)


def explicit_objective(model: ALS, ratings: Interactions, p: npt.NDArray[np.float32]) -> float:
    """Evaluate the formula in the docstring of `ALS`, cell by cell."""
    r, observed = dense(ratings)
    r_hat = model.global_mean + model.user_biases[:, None].astype(np.float64) + model.item_biases[None, :]
    r_hat = r_hat + p.astype(np.float64) @ model.item_factors.T.astype(np.float64)
    scaled, deviation = model.regularization_scaling != "none", float(ratings.ratings.std(dtype=np.float64))
    of_factors = float(model.regularization)
    of_users = of_factors if model.bias_regularization is None else float(model.bias_regularization)
    of_items = of_users if model.item_bias_regularization is None else model.item_bias_regularization
    tilt = math.sqrt(of_users / of_items) if model.biases else 1
    penalty = 0.0
    for axis, factors, biases, strength, factor in (
        (1, p, model.user_biases, of_users, of_factors * tilt),
        (0, model.item_factors, model.item_biases, of_items, of_factors / tilt),
    ):
        often = observed.sum(axis=axis) if scaled else np.ones(observed.shape[1 - axis])
        penalty += often @ (factor * deviation * squares(factors) + strength * biases.astype(np.float64) ** 2)
    return float((observed * (r - r_hat) ** 2).sum() + penalty)


OBJECTIVES: list[Any] = [
    *[
        pytest.param(ALS(regularization_scaling=scaling, biases=biases), id=f"ALS {scaling} biases={biases}")
        for scaling in ("count", "none")
        for biases in (True, False)
    ],
    pytest.param(ALS(bias_regularization=0.3), id="ALS, biases apart"),
    pytest.param(
        ALS(bias_regularization=0.1, item_bias_regularization=0.4, regularization_scaling="none"),
        id="ALS, biases of items apart",
    ),
    *[
        pytest.param(
            ImplicitALS(alpha=alpha, regularization_exponent=nu, unobserved_weight=0.3), id=f"rendle {alpha=} {nu=}"
        )
        for alpha in (None, 0.7)
        for nu in (0.0, 0.5, 1.0)
    ],
    *[pytest.param(ImplicitALS(weighting="hu", alpha=alpha), id=f"hu {alpha=}") for alpha in (None, 0.7)],
]


INEXACT: list[Any] = [
    pytest.param(kind(**settings), id=f"{kind.__name__}, {name}")
    for kind in (ALS, ImplicitALS)
    for name, settings in SOLVERS.items()
]


def fit_for_objective(model: ALS | ImplicitALS) -> tuple[Any, Interactions, Callable[..., float]]:
    ratings = weighted_ratings()
    model = type(model)(**{**model.get_params(), "n_factors": 4, "n_epochs": 8, "regularization": 0.05})
    return model.fit(ratings), ratings, explicit_objective if isinstance(model, ALS) else implicit_objective


@pytest.mark.parametrize("model", OBJECTIVES + INEXACT)
def test_the_objective_is_the_formula_of_the_docstring(model: ALS | ImplicitALS) -> None:
    fitted, ratings, objective = fit_for_objective(model)

    assert fitted.history[-1]["objective"] == pytest.approx(objective(fitted, ratings, fitted.user_factors), rel=1e-5)


@pytest.mark.parametrize("model", OBJECTIVES + INEXACT)
def test_the_objective_never_rises(model: ALS | ImplicitALS) -> None:
    fitted, _, _ = fit_for_objective(model)

    objectives = np.array([record["objective"] for record in fitted.history])

    assert np.all(np.diff(objectives) <= 1e-5 * objectives[:-1])
    assert objectives[-1] < objectives[0]


@pytest.mark.parametrize("model", OBJECTIVES)
def test_the_user_factors_minimise_the_formula_of_the_docstring(model: ALS | ImplicitALS) -> None:
    fitted, ratings, objective = fit_for_objective(model)
    rng = np.random.default_rng(0)
    at_minimum = objective(fitted, ratings, fitted.user_factors)

    for user in range(ratings.n_users):
        elsewhere = fitted.user_factors.copy()
        elsewhere[user] += 0.01 * rng.standard_normal(4, np.float32)
        assert objective(fitted, ratings, elsewhere) >= at_minimum


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(ALS(n_factors=1, regularization=0.01, biases=False), id="ALS"),
        pytest.param(
            SGD(
                n_factors=1,
                n_epochs=100,
                regularization=0,
                biases=False,
                adaptive=False,
                learning_rate=0.05,
                init_scale=1,
            ),
            id="SGD",
        ),
    ],
)
def test_a_missing_rating_is_not_a_0(model: Model) -> None:
    # Everybody gives 4 to the few items he rates; without biases, only p·q can say so of the others.
    users, items = np.nonzero(np.random.default_rng(0).random((30, 30)) < 0.25)
    ratings = testing.from_indices(users, items, np.full(len(users), 4.0), 30, 30)
    missing = np.nonzero(dense(ratings)[1] == 0)

    predictions = model.fit(ratings).predict(*missing)

    np.testing.assert_allclose(np.abs(predictions), 4, atol=0.5)


@each_factor_model
def test_validation_figures_are_those_of_evaluate(kind: type[Model]) -> None:
    train, test = fastmf.split.random(small_ratings(), test_fraction=0.2, seed=0)

    model = kind(n_factors=3, n_epochs=3).fit(train, validation=test)

    wanted = {ImplicitALS: ["ndcg", "recall"], BPR: ["ndcg", "recall", "auc"]}.get(kind, ["rmse"])
    figures = fastmf.evaluate(model, test, metrics=wanted)
    last = {name: value for name, value in model.history[-1].items() if name.startswith("validation_")}
    names = [f"{name}@10" if name in ("ndcg", "recall") else name for name in wanted]
    assert last == {f"validation_{name}": figures[name] for name in names}
    assert len({record[f"validation_{names[0]}"] for record in model.history}) > 1


@each_model
def test_validation_does_not_change_what_is_learned(kind: type[Model]) -> None:
    train, test = fastmf.split.random(small_ratings(), test_fraction=0.2, seed=0)

    assert arrays(make(kind, n_epochs=2).fit(train, validation=test)) == arrays(make(kind, n_epochs=2).fit(train))


@each_model
def test_validation_takes_a_catalogue_smaller_than_its_cut_off(kind: type[Model]) -> None:
    ratings = Interactions.from_arrays([1, 1, 2, 2], [1, 2, 2, 3], [4, 5, 3, 4])
    unseen = Interactions.from_arrays([1, 2], [3, 1], [4, 5])

    model = make(kind, n_factors=2, n_epochs=2).fit(ratings, validation=unseen)

    assert {"validation_ndcg@3" if model.is_implicit else "validation_rmse"} <= model.history[-1].keys()


@each_factor_model
def test_callbacks_get_the_model_and_the_record_of_each_epoch(kind: type[Model]) -> None:
    calls: list[tuple[Any, Any, bool]] = []
    model = kind(n_factors=2, n_epochs=3)

    def note(given: Model, record: dict[str, Any]) -> None:
        calls.append((given, record, record is given.history[-1]))
        assert np.isfinite(given.predict([0], [0])).all()  # the model answers while it is trained

    model.fit(small_ratings(), callbacks=[note])

    assert [(given is model, record["epoch"], latest) for given, record, latest in calls] == [
        (True, epoch, True) for epoch in (1, 2, 3)
    ]


@each_factor_model
def test_a_callback_can_stop_training_and_the_others_still_hear_of_the_epoch(kind: type[Model]) -> None:
    heard: list[int] = []

    model = kind(n_factors=2, n_epochs=9).fit(
        small_ratings(),
        callbacks=[lambda _, record: record["epoch"] == 2, lambda _, record: heard.append(record["epoch"])],
    )

    assert [record["epoch"] for record in model.history] == [1, 2] == heard
    assert arrays(model) == arrays(kind(n_factors=2, n_epochs=2).fit(small_ratings()))


@pytest.mark.parametrize("model", INEXACT)
def test_all_solvers_end_at_the_same_objective(model: ALS | ImplicitALS) -> None:
    settings = {"n_factors": 20, "n_epochs": 60, "regularization": 0.3}
    exact, other = (
        type(model)(**{**params, **settings}).fit(weighted_ratings()) for params in ({}, model.get_params())
    )

    if model.nonnegative:  # another problem, whose minimum cannot be lower
        assert other.history[-1]["objective"] > (1 - 1e-6) * exact.history[-1]["objective"]
    else:
        assert other.history[-1]["objective"] == pytest.approx(exact.history[-1]["objective"], rel=2e-3)


@pytest.mark.parametrize("kind", [ALS, ImplicitALS])
def test_nonnegative_factors_are_that_and_biases_need_not_be(kind: type[Any]) -> None:
    model = kind(n_factors=4, n_epochs=3, nonnegative=True).fit(small_ratings())

    assert model.user_factors.min() >= 0
    assert model.item_factors.min() >= 0
    assert model.user_factors.max() > 0
    assert (model.user_biases.min() < 0) == (kind is ALS)


@pytest.mark.parametrize("solver", ["cg", "subspace"])
def test_only_exact_sweeps_keep_factors_from_falling_below_0(solver: str) -> None:
    with pytest.raises(ParameterError, match=f"solver is '{solver}' and nonnegative is True; expected \"cholesky\""):
        ImplicitALS(solver=solver, nonnegative=True)


@each_factor_model
def test_patience_stops_training_and_gives_back_the_best_epoch(kind: type[Model]) -> None:
    train, test = fastmf.split.random(small_ratings(), 0.3, seed=1)
    settings = {"n_factors": 12, "regularization": 1e-4, "n_epochs": 60}
    figure = "validation_ndcg@10" if kind().is_implicit else "validation_rmse"

    model = kind(**settings, patience=3).fit(train, validation=test)

    figures = [record[figure] for record in model.history]
    best = max(figures) if kind().is_implicit else min(figures)
    assert len(figures) < 60
    assert model.best_epoch == 1 + figures.index(best) == len(figures) - 3
    # The same as if it had been told to stop there, and what was measured then is what it gives now.
    assert arrays(model) == arrays(kind(**settings | {"n_epochs": model.best_epoch}).fit(train))
    name = figure.removeprefix("validation_")
    assert fastmf.evaluate(model, test, metrics=[name.partition("@")[0]])[name] == pytest.approx(best)


@each_factor_model
def test_with_patience_the_last_epoch_may_be_the_best(kind: type[Model]) -> None:
    train, test = fastmf.split.random(small_ratings(), 0.1, seed=1)

    model = kind(n_factors=2, n_epochs=1, patience=5).fit(train, validation=test)

    assert model.best_epoch == 1
    assert arrays(model) == arrays(kind(n_factors=2, n_epochs=1).fit(train))
    assert kind(n_factors=2, n_epochs=1).fit(train).best_epoch is None


@each_factor_model
def test_a_changed_patience_says_nothing_about_the_fit_before(kind: type[Model], tmp_path: Path) -> None:
    train, test = fastmf.split.random(small_ratings(), 0.3, seed=1)
    patient, measured, plain = (
        kind(n_factors=2, n_epochs=3, patience=patience).fit(train, validation=validation)
        for patience, validation in ((1, test), (None, test), (None, None))
    )
    best = patient.best_epoch
    assert best is not None

    patient.set_params(patience=None)
    measured.set_params(patience=2)
    plain.set_params(patience=2)

    for name, model, expected in (("a", patient, best), ("b", measured, None), ("c", plain, None)):
        model.save(tmp_path / name)
        assert model.best_epoch == fastmf.load(tmp_path / name).best_epoch == expected


@each_factor_model
def test_patience_needs_something_to_be_measured_on(kind: type[Model]) -> None:
    with pytest.raises(ParameterError, match="patience is 2 but there is no validation set; pass validation="):
        kind(patience=2).fit(small_ratings())


@each_factor_model
@pytest.mark.parametrize("failure", [ValueError("bug"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_failing_callback_leaves_the_previous_fit(kind: type[Model], failure: BaseException) -> None:
    def fail(*_: object) -> None:
        raise failure

    model = kind(n_factors=2, n_epochs=2).fit(small_ratings())
    before, history = arrays(model), list(model.history)

    with pytest.raises(type(failure)):
        model.set_params(n_factors=3).fit(small_ratings(seed=1), callbacks=[fail])

    assert arrays(model) == before
    assert model.history == history


def test_divergence_names_the_learning_rate_and_leaves_the_model_as_it_was() -> None:
    model = SGD(n_factors=2, n_epochs=2).fit(small_ratings())
    before, history = arrays(model), list(model.history)

    with pytest.raises(DivergenceError, match=r"diverged in epoch 1: .* with learning_rate=1000; lower it"):
        model.set_params(learning_rate=1000).fit(small_ratings())

    assert arrays(model) == before
    assert model.history == history


def test_a_rising_loss_is_divergence_before_numbers_overflow() -> None:
    model = SGD(n_factors=4, learning_rate=0.38, adaptive=False, regularization=0, n_epochs=30)

    with pytest.raises(
        DivergenceError, match=r"train_rmse rose from 1.5\d* to 1.\d* with learning_rate=0\.38; lower it, for .* 0\.01"
    ):
        model.fit(testing.power_law(200, 100, 6000, noise=2))


@pytest.mark.parametrize("solver", ["cholesky", "cg", "subspace"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_sweeps_that_overflow_are_divergence(backend: str, solver: str) -> None:
    model = ImplicitALS(n_factors=4, init_scale=1e25, regularization=0.01, solver=solver, backend=backend)

    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match=r"regularization=0\.01; raise it"):
        model.fit(small_ratings())


def test_divergence_leaves_a_new_model_unfitted() -> None:
    model = SGD(n_factors=2, learning_rate=1000)

    with pytest.raises(DivergenceError):
        model.fit(small_ratings())
    with pytest.raises(NotFittedError):
        model.predict([1], [1])
    assert model.history == []


DESCENT: list[Any] = [
    pytest.param(lambda **kw: SGD(**kw), id="SGD"),
    pytest.param(lambda **kw: SGD(adaptive=False, learning_rate=0.02, **kw), id="SGD, constant steps"),
    pytest.param(lambda **kw: SGD(loss="logistic", **kw), id="SGD of what was chosen"),
    pytest.param(lambda **kw: SVDpp(**kw), id="SVDpp"),
    pytest.param(lambda **kw: BPR(**kw), id="BPR"),
]
each_descent = pytest.mark.parametrize("make", DESCENT)


@each_descent
def test_partial_fit_admits_users_and_items_and_keeps_what_it_knew(make: Make) -> None:
    first = Interactions.from_arrays(["b", "b", "d", "d"], ["x", "y", "y", "w"], [5, 3, 4, 1])
    more = Interactions.from_arrays(["a", "d"], ["z", "x"], [2, 4])
    model = make(n_factors=3, n_epochs=2).fit(first)
    b_before, y_before = model.user_factors[0].copy(), model.item_factors[2].copy()

    model.partial_fit(more)

    assert model.user_ids.to_pylist() == ["a", "b", "d"]
    assert model.item_ids.to_pylist() == ["w", "x", "y", "z"]
    if not isinstance(model, SVDpp):  # where b is also what others think of x and y
        assert model.user_factors[1].tolist() == b_before.tolist()  # nothing new about b
    if not model.is_implicit:  # there y may have been drawn
        assert model.item_factors[2].tolist() == y_before.tolist()
    assert model.user_factors[0].any()
    recommended = model.recommend(k=4).to_arrow().to_pylist()
    assert {(row["user_id"], row["item_id"]) for row in recommended} == {
        *(("a", item) for item in "wxy"),
        *(("b", item) for item in "wz"),
        ("d", "z"),
    }
    assert [record["epoch"] for record in model.history] == [1, 2]
    assert model.fitted.data["n_ratings"] == 6
    assert model.fitted.data["mean"] == pytest.approx(19 / 6)


@each_descent
def test_partial_fit_takes_what_fit_takes(make: Make) -> None:
    first, more = small_ratings(), small_ratings(seed=1)
    expected = make(n_factors=3, n_epochs=1).fit(first).partial_fit(more)

    for table in (more.to_arrow(), more.to_scipy()):
        model = make(n_factors=3, n_epochs=1).fit(first.to_arrow()).partial_fit(table, validation=table)
        assert arrays(model) == arrays(expected)
        assert any(name.startswith("validation_") for name in model.history[-1])


@each_descent
def test_partial_fit_learns_from_what_comes(make: Make) -> None:
    ratings = testing.film_club(300, 100, seed=1)
    first, rest = fastmf.split.random(ratings, 0.5, seed=0)
    more, test = fastmf.split.random(rest, 0.4, seed=0)
    model = make(n_factors=8, n_epochs=10).fit(first)
    metric = "auc" if model.is_implicit else "rmse"
    before = fastmf.evaluate(model, test, metrics=[metric])[metric]

    after = fastmf.evaluate(model.partial_fit(more), test, metrics=[metric])[metric]

    assert after > before if model.is_implicit else after < before


@each_descent
def test_partial_fit_goes_on_after_saving_as_it_would_have_before(make: Make, tmp_path: Path) -> None:
    first, more = fastmf.split.random(small_ratings(), 0.3, seed=0)
    model = make(n_factors=3, n_epochs=2).fit(first)
    model.save(tmp_path / "model")

    loaded = fastmf.load(tmp_path / "model")

    assert isinstance(loaded, SGD | SVDpp | BPR)
    assert arrays(loaded.partial_fit(more)) == arrays(model.partial_fit(more))
    assert arrays(fastmf.load(tmp_path / "model")) != arrays(model)


def test_partial_fit_says_what_does_not_fit() -> None:
    model = SGD(n_factors=2, n_epochs=1)
    with pytest.raises(NotFittedError):
        model.partial_fit(small_ratings())
    model.fit(small_ratings())
    before = arrays(model)

    with pytest.raises(DataError, match=r"user_ids of the new ratings are string, those of the model int64; cast them"):
        model.partial_fit(Interactions.from_arrays(["a"], ["b"], [1]))
    with pytest.raises(DataError, match="no ratings to train on"):
        model.partial_fit(small_ratings().take(np.arange(0)))
    with pytest.raises(DivergenceError):
        model.set_params(learning_rate=1e30, adaptive=False).partial_fit(small_ratings(seed=1))
    with pytest.raises(ParameterError, match="n_factors is 3 but the model has 2 factors; set it back, or call fit"):
        model.set_params(n_factors=3).partial_fit(small_ratings())
    assert arrays(model) == before


CHANGES: list[tuple[type[Any], dict[str, Any], dict[str, Any], str]] = [
    (SGD, {}, {"rating_range": (0.5, 5)}, "rating_range is (0.5, 5) but the model was trained with None"),
    (SGD, {"rating_range": (0, 5)}, {"rating_range": None}, "rating_range is None but the model was trained with (0,"),
    (SGD, {"rating_range": (0, 5)}, {"rating_range": (0, 6)}, "rating_range is (0, 6) but the model was trained with"),
    (SGD, {}, {"loss": "logistic"}, "loss is 'logistic' but the model was trained with 'squared'"),
    (SGD, {"loss": "logistic"}, {"loss": "squared"}, "loss is 'squared' but the model was trained with 'logistic'"),
    (SGD, {"loss": "logistic"}, {"loss": "squared", "rating_range": (0, 1)}, "rating_range is (0, 1) but the model"),
    (SVDpp, {}, {"rating_range": (0.5, 5)}, "rating_range is (0.5, 5) but the model was trained with None"),
    *[
        (kind, {"biases": was}, {"biases": not was}, f"biases is {not was} but")
        for kind in (SGD, SVDpp, BPR)
        for was in (True, False)
    ],
    *[(kind, {}, {"n_factors": 5}, "n_factors is 5 but the model has 3 factors") for kind in (SGD, SVDpp, BPR)],
]


@pytest.mark.parametrize(("kind", "before", "after", "message"), CHANGES)
@pytest.mark.parametrize("is_loaded", [False, True], ids=["in memory", "loaded"])
def test_what_going_on_cannot_change_is_refused_by_name(
    kind: type[SGD], before: dict[str, Any], after: dict[str, Any], message: str, is_loaded: bool, tmp_path: Path
) -> None:
    model = kind(n_factors=3, n_epochs=1, **before).fit(small_ratings())
    model.set_params(**after)
    if is_loaded:  # saved with the parameters of the next fit, and still a fit with those before
        model.save(tmp_path / "model")
        loaded = fastmf.load(tmp_path / "model")
        assert isinstance(loaded, kind)
        model = loaded
    known = arrays(model)

    with pytest.raises(ParameterError) as error:
        model.partial_fit(small_ratings(seed=1))

    assert str(error.value).startswith(message)
    assert str(error.value).endswith("set it back, or call fit")
    assert arrays(model) == known
    model.set_params(n_factors=3, **{name: getattr(kind(), name) for name in after if name != "n_factors"})
    assert arrays(model.set_params(**before).partial_fit(small_ratings(seed=1))) != known


@each_descent
def test_what_going_on_can_change_is_taken(make: Make) -> None:
    model = make(n_factors=3, n_epochs=1).fit(small_ratings())
    free = {"learning_rate": 0.01, "regularization": 0.5, "n_epochs": 2, "init_scale": 0.2, "seed": 5, "adaptive": True}

    model.set_params(**free, regularization_scaling="none", n_threads=1).partial_fit(small_ratings(seed=1))

    assert len(model.history) == 2


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_changed_loss_takes_effect_at_the_next_fit_and_not_before(loss: str) -> None:
    train, test = fastmf.split.random(small_ratings(), 0.2, seed=0)
    model = SGD(n_factors=3, n_epochs=1, loss=loss).fit(train)
    before = fastmf.evaluate(model, test)
    other = "logistic" if loss == "squared" else "squared"

    model.set_params(loss=other)

    assert fastmf.evaluate(model, test) == before
    model.fit(train, validation=test)
    assert model.is_implicit == (other == "logistic")
    assert ("validation_rmse" in model.history[-1]) == (other == "squared")
    assert arrays(model) == arrays(SGD(n_factors=3, n_epochs=1, loss=other).fit(train))


def test_a_range_given_in_another_form_is_the_same() -> None:
    model = SGD(n_factors=3, n_epochs=1, rating_range=[0.5, 5]).fit(small_ratings())

    model.set_params(rating_range=(np.float32(0.5), np.int64(5))).partial_fit(small_ratings(seed=1))

    assert len(model.history) == 1


def test_a_range_is_not_for_the_logistic_loss() -> None:
    with pytest.raises(ParameterError, match='loss is "logistic", which predicts probabilities; leave rating_range'):
        SGD(loss="logistic", rating_range=(1, 5))


def test_the_logistic_loss_predicts_probabilities() -> None:
    board = testing.checkerboard(20)
    model = SGD(n_factors=4, n_epochs=60, loss="logistic", regularization=0.001).fit(board.ratings)

    chosen = model.predict_indices(board.ratings.users, board.ratings.items)
    other = model.predict_indices(board.ratings.users, ((board.ratings.items + 1) % 20).astype(np.int32))

    assert 0 <= other.min() <= chosen.max() <= 1
    assert chosen.mean() > 0.5 > other.mean()


def test_with_a_rating_range_predictions_never_leave_it() -> None:
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((40, 30)) < 0.3)
    extremes = testing.from_indices(users, items, rng.choice([1.0, 5.0], len(users)), 40, 30)
    everything = np.divmod(np.arange(40 * 30), 30)

    bounded, free = (
        SGD(
            n_factors=8, n_epochs=200, learning_rate=0.05, regularization=0, rating_range=rating_range, n_threads=1
        ).fit(extremes)
        for rating_range in ((1, 5), None)
    )

    predictions = bounded.predict(*everything)
    assert 1 <= predictions.min() < 1.5
    assert 4.5 < predictions.max() <= 5
    assert bounded.predict([999], [999]) == pytest.approx(extremes.ratings.mean(), abs=0.01)
    scores = bounded.recommend(k=30, exclude=None).scores
    assert 1 <= scores.min() <= scores.max() <= 5
    # Without the range this table drives predictions out of it, so that it is the range that keeps them in.
    assert free.predict(*everything).max() > 5


@pytest.mark.parametrize("mean", [1, 5])
def test_ratings_that_are_all_at_one_end_of_the_range_are_no_trouble(mean: float) -> None:
    ratings = testing.from_indices(np.arange(4), np.arange(4), np.full(4, mean), 4, 4)

    predictions = SGD(n_factors=2, rating_range=(1, 5)).fit(ratings).predict(range(4), range(4))

    np.testing.assert_allclose(predictions, mean, atol=0.1)


def test_ratings_outside_the_range_are_refused_with_count_and_example() -> None:
    ratings = Interactions.from_arrays([1, 2, 3, 4], [1, 2, 3, 4], [5, 0.5, 3, 6])

    with pytest.raises(DataError) as error:
        SGD(rating_range=(1, 5)).fit(ratings)

    assert "2 ratings lie outside rating_range (1, 5), for example 0.5; widen the range" in str(error.value)


IMPLICIT: list[Any] = [
    pytest.param(lambda **kw: ImplicitALS(**kw), id="rendle"),
    pytest.param(lambda **kw: ImplicitALS(alpha=2.0, **kw), id="rendle with alpha"),
    pytest.param(lambda **kw: ImplicitALS(weighting="hu", **kw), id="hu"),
    pytest.param(lambda **kw: ImplicitALS(weighting="hu", alpha=3.0, **kw), id="hu with alpha"),
    pytest.param(lambda **kw: BPR(**kw), id="BPR"),
    pytest.param(lambda **kw: SGD(loss="logistic", **kw), id="SGD, logistic"),
]
each_implicit = pytest.mark.parametrize("make", IMPLICIT)


def clicks_and_others(others: float) -> tuple[Interactions, Interactions]:
    """Clicks, and the same with ratings of another value for some pairs that were not clicked."""
    users, items = np.nonzero(np.random.default_rng(3).random((40, 30)) < 0.2)
    clicks = testing.from_indices(users, items, np.ones(len(users)), 40, 30)
    free = np.argwhere(dense(clicks)[1] == 0)[::5]
    users, items = np.concatenate([np.column_stack([clicks.users, clicks.items]), free]).T
    ratings = np.concatenate([clicks.ratings, np.full(len(free), others)])
    return clicks, testing.from_indices(users, items, ratings, 40, 30)


@each_implicit
@pytest.mark.parametrize("solver", ["cholesky", "cg", "subspace"])
def test_a_stored_0_is_learned_from_as_if_it_were_not_there(make: Make, solver: str) -> None:
    clicks, with_zeros = clicks_and_others(0)
    settings = {"solver": solver} if isinstance(make(), ImplicitALS) else {}

    with_them, without = (make(n_factors=3, n_epochs=3, **settings).fit(part) for part in (with_zeros, clicks))

    assert arrays(with_them) == arrays(without)
    assert timeless(with_them.history) == timeless(without.history)


@pytest.mark.parametrize("weighting", ["rendle", "hu"])
def test_users_and_items_of_stored_zeros_alone_take_no_part(weighting: str) -> None:
    users, items = np.divmod(np.arange(0, 120, 2), 10)
    ones, zeros = np.ones(60), np.zeros(3)
    clicks = fastmf.Interactions.from_arrays(users, items, ones)
    with_zeros = fastmf.Interactions.from_arrays(
        np.append(users, [90, 90, 3]), np.append(items, [0, 70, 70]), np.append(ones, zeros)
    )

    with_them, without = (
        ImplicitALS(n_factors=3, n_epochs=3, weighting=weighting).fit(part) for part in (with_zeros, clicks)
    )

    np.testing.assert_array_equal(with_them.user_factors[:-1], without.user_factors)
    np.testing.assert_array_equal(with_them.item_factors[:-1], without.item_factors)
    assert not with_them.user_factors[-1].any()
    assert not with_them.item_factors[-1].any()


@each_implicit
@pytest.mark.parametrize("value", [0, -1, -0.5])
def test_what_was_not_chosen_was_seen_all_the_same(make: Make, value: float) -> None:
    _, ratings = clicks_and_others(value)

    recommended = make(n_factors=3, n_epochs=1).fit(ratings).recommend(k=30).to_arrow()

    pairs = set(zip(recommended["user_id"].to_pylist(), recommended["item_id"].to_pylist(), strict=True))
    assert len(pairs) == 40 * 30 - ratings.n_ratings
    assert not pairs & set(zip(ratings.users.tolist(), ratings.items.tolist(), strict=True))


@pytest.mark.parametrize("weighting", ["rendle", "hu"])
@pytest.mark.parametrize("solver", ["cholesky", "cg", "subspace"])
def test_a_dislike_pulls_its_score_to_0_the_more_the_larger_it_is(weighting: str, solver: str) -> None:
    clicks, _ = clicks_and_others(0)
    settings = {"n_factors": 8, "n_epochs": 12, "alpha": 4.0, "weighting": weighting, "solver": solver}
    settings |= {"regularization": 0.01, "unobserved_weight": 0.1}
    means = []
    for value in (0, -0.5, -5):
        _, ratings = clicks_and_others(value)
        model = ImplicitALS(**settings).fit(ratings)
        others = ratings.ratings <= 0
        means.append(np.abs(model.predict_indices(ratings.users[others], ratings.items[others])).mean())
        chosen = model.predict_indices(clicks.users, clicks.items)
        assert chosen.mean() > 0.4

    assert means[0] > 1.1 * means[1] > 1.21 * means[2]


@pytest.mark.parametrize("weighting", ["rendle", "hu"])
def test_without_alpha_a_dislike_weighs_1_or_its_magnitude(weighting: str) -> None:
    """For "rendle" every observation then weighs 1, whatever its size; for "hu" alpha is 1."""
    settings = {"n_factors": 3, "n_epochs": 2, "weighting": weighting}
    small, large = (ImplicitALS(**settings).fit(clicks_and_others(value)[1]) for value in (-1, -7))
    explicitly = ImplicitALS(**settings, alpha=1.0).fit(clicks_and_others(-1)[1])

    assert (arrays(small) == arrays(large)) == (weighting == "rendle")
    for name in ("user_factors", "item_factors"):
        np.testing.assert_allclose(getattr(small, name), getattr(explicitly, name), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", IMPLICIT[4:])
@pytest.mark.parametrize("value", [0, -3])
def test_an_item_that_was_not_chosen_may_be_drawn(make: Make, value: float) -> None:
    # Everybody has chosen all items but one, which all have rated low: nothing else is left to be drawn.
    users, items = np.divmod(np.arange(20 * 8), 8)
    ratings = testing.from_indices(users, items, np.where(items == 5, value, 1.0), 20, 8)

    model = make(n_factors=2, n_epochs=30).fit(ratings)

    scores = model.predict(users, items).reshape(20, 8)
    assert (scores[:, 5] < scores[:, [0, 1, 2, 3, 4, 6, 7]].min(axis=1)).all()


@pytest.mark.parametrize("make", IMPLICIT[4:])
def test_going_on_draws_items_that_are_no_longer_chosen(make: Make) -> None:
    users, items = np.divmod(np.arange(20 * 8), 8)
    chosen = testing.from_indices(users, items, np.ones(160), 20, 8)
    model = make(n_factors=2, n_epochs=30).fit(chosen)

    model.partial_fit(testing.from_indices(users, items, np.where(items == 5, 0.0, 1.0), 20, 8))

    scores = model.predict(users, items).reshape(20, 8)
    assert (scores[:, 5] < scores[:, [0, 1, 2, 3, 4, 6, 7]].min(axis=1)).all()


@each_implicit
@pytest.mark.parametrize("value", [0, -2])
def test_what_was_not_chosen_is_not_relevant(make: Make, value: float) -> None:
    clicks, ratings = clicks_and_others(value)
    model = make(n_factors=3, n_epochs=2).fit(small_ratings())

    found, expected = (fastmf.evaluate(model, test, k=5, metrics=["ndcg", "rmse"]) for test in (ratings, clicks))

    assert found["ndcg@5"] == expected["ndcg@5"]
    predictions = model.predict(ratings.users, ratings.items)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((predictions - (ratings.ratings > 0)) ** 2)), rel=1e-5)


@each_implicit
@pytest.mark.parametrize("values", [[0, 0, 0], [-1, -2, -3], [0, -1, 0]], ids=str)
def test_data_in_which_nothing_was_chosen_is_refused(make: Make, values: list[float]) -> None:
    model = make(n_factors=2, n_epochs=1).fit(Interactions.from_arrays([1, 2, 3], [1, 2, 3]))
    ratings = Interactions.from_arrays([1, 2, 3], [1, 2, 3], values)

    message = f"none of 3 ratings is above 0, the largest is {max(values)}; an implicit model learns from what was"
    with pytest.raises(DataError, match=message):
        model.fit(ratings)
    if not isinstance(model, ImplicitALS):
        with pytest.raises(DataError, match=message):
            model.partial_fit(ratings)
    assert np.isfinite(ALS(n_epochs=1).fit(ratings).predict([1], [1]))


@each_model
def test_no_ratings_are_refused(kind: type[Model]) -> None:
    ratings = small_ratings()

    with pytest.raises(DataError, match="there are no ratings to train on; expected at least one"):
        kind().fit(ratings.take(np.empty(0, np.int64)))


@each_model
def test_what_is_no_table_of_ratings_is_refused(kind: type[Model]) -> None:
    with pytest.raises(ParameterError, match="ratings is a str; expected Interactions"):
        kind().fit("ratings.parquet")
    with pytest.raises(ParameterError, match="validation is a dict; expected Interactions"):
        kind().fit(small_ratings(), validation={})


SINGULAR: list[Any] = [
    pytest.param(ALS(regularization=0), id="ALS"),
    pytest.param(ALS(regularization=0, biases=False), id="ALS without biases"),
    pytest.param(ImplicitALS(regularization=0, unobserved_weight=0), id="rendle"),
    pytest.param(ImplicitALS(regularization=0, unobserved_weight=0, alpha=0.5), id="rendle with alpha"),
    pytest.param(ImplicitALS(regularization=0, weighting="hu"), id="hu"),
    pytest.param(ALS(regularization=0, solver="cg", cg_steps=20), id="ALS, cg"),
    pytest.param(ALS(regularization=0, solver="subspace"), id="ALS, subspace"),
    pytest.param(ImplicitALS(regularization=0, unobserved_weight=0, solver="cg", cg_steps=20), id="rendle, cg"),
    pytest.param(ImplicitALS(regularization=0, unobserved_weight=0, solver="subspace"), id="rendle, subspace"),
]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("model", SINGULAR)
def test_without_regularization_a_singular_row_gets_finite_factors(model: ALS | ImplicitALS, backend: str) -> None:
    # User 0 has one rating, users 1 and 2 the same one, item 5 and user 6 none; there are more factors than ratings.
    ratings = testing.from_indices(
        np.array([0, 1, 2, 3, 3, 4, 5]), np.array([0, 1, 1, 0, 2, 3, 4]), np.array([4, 3, 3, 5, 2, 1, 4]), 7, 6
    )
    model = type(model)(**{**model.get_params(), "n_factors": 8, "n_epochs": 4, "backend": backend})

    model.fit(ratings)

    everything = np.divmod(np.arange(7 * 6), 6)
    predictions = model.predict(*everything).reshape(7, 6)
    assert np.isfinite(predictions).all()
    assert np.abs(model.user_factors).max() < 100  # of all solutions the short one, not a huge one
    if not (isinstance(model, ImplicitALS) and model.weighting == "hu"):  # there the unobserved cells pull too
        target = ratings.ratings if isinstance(model, ALS) else np.ones(7)
        np.testing.assert_allclose(predictions[ratings.users, ratings.items], target, atol=1e-2)


@each_factor_model
def test_users_and_items_without_ratings_are_carried_along(kind: type[Model]) -> None:
    # A split keeps the id space of its source, so this is what every training part looks like.
    ratings = testing.from_indices(np.array([0, 2]), np.array([1, 1]), np.array([3, 4]), 4, 3)

    model = kind(n_factors=2, n_epochs=2).fit(ratings)

    assert np.isfinite(model.predict([1, 3], [0, 2])).all()
    if kind in (ALS, ImplicitALS):
        assert not model.user_factors[[1, 3]].any()
        assert not model.item_factors[[0, 2]].any()


@each_model
@pytest.mark.parametrize(
    "ask",
    [
        lambda model, path: model.predict([1], [1]),
        lambda model, path: model.recommend(),
        lambda model, path: model.recommend_to_parquet(path / "recs.parquet"),
        lambda model, path: model.similar_items([1]),
        lambda model, path: model.similar_users([1]),
        lambda model, path: model.save(path / "model"),
        lambda model, path: model.user_factors,
        lambda model, path: model.item_ids,
        lambda model, path: fastmf.evaluate(model, small_ratings()),
    ],
)
def test_before_fit_every_question_is_answered_with_what_to_do(
    kind: type[Model], ask: Callable[..., Any], tmp_path: Any
) -> None:
    with pytest.raises(NotFittedError, match=rf"this {kind.__name__} is not fitted; call fit\(ratings\) first"):
        ask(kind(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@each_factor_model
def test_progress_is_shown_on_standard_error_only_when_asked_for(
    kind: type[Model], capsys: pytest.CaptureFixture[str]
) -> None:
    kind(n_factors=2, n_epochs=2).fit(small_ratings())
    assert capsys.readouterr() == ("", "")

    kind(n_factors=2, n_epochs=2, verbose=True).fit(small_ratings())
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{kind.__name__}: 2/2 epochs" in err


def test_errors_of_models_can_be_caught_as_one() -> None:
    with pytest.raises(FastMFError):
        ImplicitALS().fit(Interactions.from_arrays([1], [1], [-1]))
    with pytest.raises(FastMFError):
        ImplicitALS(n_factors=0)


def test_user_ids_may_be_integers_and_item_ids_strings() -> None:
    model = ALS(n_factors=2, n_epochs=1).fit(Interactions.from_arrays([10, 20], ["x", "y"], [1, 2]))

    assert model.user_ids.type == pa.int64()
    assert model.item_ids.type == pa.string()
    with pytest.raises(DataError, match="column 'user_ids' has ids of type string, the model's are int64"):
        model.predict(["10"], ["x"])


def test_answers_follow_the_factors_from_epoch_to_epoch() -> None:
    ratings = testing.low_rank(n_users=20, n_items=15)

    def predicts_what_it_recommends(model: Any, record: dict[str, Any]) -> None:
        table = model.recommend([3], k=5, exclude=None).to_arrow()
        predicted = model.predict(table["user_id"], table["item_id"])
        np.testing.assert_allclose(table["score"].to_numpy(), predicted, rtol=1e-4)

    fastmf.SGD(n_factors=4, n_epochs=3, learning_rate=0.1).fit(ratings, callbacks=[predicts_what_it_recommends])


@each_factor_model
def test_one_thread_is_one_in_everything_that_a_fit_and_its_answers_do(
    kind: type[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastmf_kernels import _jit

    asked: list[int | None] = []
    resolve = _jit.resolve_threads

    def recording(n_threads: int | None) -> int:
        asked.append(n_threads)
        return resolve(n_threads)

    ratings, more = small_ratings(), small_ratings(1)
    monkeypatch.setattr(_jit, "resolve_threads", recording)
    model = kind(n_factors=4, n_epochs=1, n_threads=1).fit(ratings)
    model.recommend(k=3)
    model.recommend(model.user_ids[:20], k=3, allow=model.item_ids[:30].to_pylist())
    model.similar_items(model.item_ids[:2], k=2)
    if isinstance(model, SGD | SVDpp | BPR):
        model.partial_fit(more)

    assert len(asked) > 4
    assert set(asked) == {1}
