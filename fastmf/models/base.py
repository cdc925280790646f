"""What all models share, whatever they learn: the methods of a fitted model, and their parameters."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fastmf.answering.answers import Recommendations
from fastmf.answering.fitted import Fitted
from fastmf.answering.reranking import Reranking
from fastmf.answering.scoring import ItemFilter, Scorer
from fastmf.backend import BACKENDS, get_backend
from fastmf.common.parameters import as_rows, require_choice, require_integer
from fastmf.errors import DataError, ParameterError, UnknownIdError, named
from fastmf.keeping import model_directory
from fastmf.keeping.model_directory import Source
from fastmf.keeping.recommendations import write_recommendations
from fastmf.measuring.evaluation import evaluate
from fastmf.measuring.metrics import METRICS
from fastmf.models.explaining import Explains
from fastmf.models.hyper_parameters import Chosen, HyperParameters
from fastmf.models.neighbours import AnswersNeighbours
from fastmf.models.training import Callback, Record, best_record
from fastmf.reading import ids
from fastmf.reading.interactions import Interactions
from fastmf.reading.parquet import PathLike
from fastmf_kernels._types import Float32Array, Int32Array

VALIDATION_K = 10
"""Cut-off of the metrics of rankings on a validation set."""
_NAMERS = {"features": "features", "interactions": "ratings"}


class Model(HyperParameters, Explains, AnswersNeighbours, ABC):
    """Base of all models: what a fitted model answers. Subclasses are dataclasses with these fields, and `fit`.

    Parameters
    ----------
    seed : int
        Seed of everything random, at least 0. The same seed and data give the same factors, bit for bit, for any
        number of threads.
    backend : {"cpu", "reference", "cuda"}
        Which kernels run: compiled ones on the CPU, slow and simple ones in NumPy, or those of an NVIDIA GPU.
    n_threads : int, optional
        Number of threads, at least 1. None: all cores.
    verbose : bool
        Show progress on standard error.
    """

    kernel_variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Parameters of fits that between them call every kernel of the model; ``fastmf warmup`` runs them."""
    fixed_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that a continued fit cannot change: the factors mean something else with others."""
    takes_features: ClassVar[bool] = False
    """Whether `fit` takes ``item_features`` and ``user_features``, and learns from them."""
    baselines: ClassVar[dict[str, "type[Model]"]] = {}
    """The class of the baseline of ``"explicit"`` and of ``"implicit"`` models; `fastmf.models.baselines` fills it."""

    seed: int
    backend: str
    n_threads: int | None
    verbose: bool

    if TYPE_CHECKING:

        def __init__(self, **parameters: Any) -> None: ...

    def _require_run_parameters(self) -> None:
        require_integer("seed", self.seed, minimum=0)
        require_choice("backend", self.backend, BACKENDS)
        if self.n_threads is not None:
            require_integer("n_threads", self.n_threads, minimum=1, otherwise="None for all cores")

    @property
    def validation_metrics(self) -> tuple[str, ...]:
        """Metrics that are measured on a validation set after each epoch; the first one selects the best epoch."""
        return ("rmse",)

    @property
    def is_implicit(self) -> bool:
        """Whether ratings only say what was chosen; such a model predicts preferences, not ratings."""
        return False

    def fixed_params(self) -> dict[str, Any]:
        """Return the parameters, by name, that a continued fit cannot change."""
        values = {name: getattr(self, name) for name in self.fixed_parameters}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    @abstractmethod
    def fit(
        self,
        ratings: Any,
        y: None = None,
        *,
        validation: Interactions | None = None,
        callbacks: Iterable[Callback] = (),
        checkpoint: PathLike | None = None,
        checkpoint_every: int = 1,
        start: "Model | None" = None,
    ) -> Self:
        """Train on ratings."""

    def baseline_model(self) -> "Model":
        """Return an unfitted baseline: `Bias`, or `Popularity` for an implicit model."""
        kind = self.baselines["implicit" if self.is_implicit else "explicit"]
        return kind(seed=self.seed, backend=self.backend, n_threads=self.n_threads, verbose=self.verbose)

    def choose_parameters(self, ratings: Interactions) -> Chosen:
        """Return what the data make of the parameters that are ``"auto"``.

        Parameters
        ----------
        ratings : Interactions
            Ratings to train on. Users and items without a rating do not count.

        Returns
        -------
        dict of str to float or str
            A number for each such parameter; empty if there is none. Where strengths are among them, and
            ``regularization_scaling`` is None, it is there as well: what a strength means depends on it.
        """
        return {}

    def _open_parameters(self) -> list[str]:
        """Return the names of the parameters whose numbers a fit chooses."""
        return self.auto_parameters()

    @property
    def chosen(self) -> Chosen:
        """What the last fit has chosen for parameters that were ``"auto"``; empty before `fit`.

        A model with these parameters in the place of ``"auto"`` learns the same: strengths come with the
        ``regularization_scaling`` that they are for, where that was None. It belongs to the fit, not to parameters that
        were set after it.
        """
        learned = self._learned()
        return {} if learned is None else dict(learned.fitted.trained_with.get("chosen", {}))

    def _validate(self, validation: Interactions) -> Record:
        """Measure the model on a validation set, as the record of an epoch has it."""
        metrics = evaluate(self, validation, k=min(VALIDATION_K, self.fitted.n_items), metrics=self.validation_metrics)
        return {f"validation_{name}": value for name, value in metrics.items() if not name.startswith("n_")}

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose factors a fit with ``patience`` has kept, from 1; None for a fit without."""
        learned = self._learned()
        if learned is None or not learned.history:
            return None
        # Models saved before do not tell with what patience they were trained.
        if not learned.fitted.trained_with.get("patience", getattr(self, "patience", None)):
            return None
        return int(best_record(learned.history, self.validation_metrics[0])["epoch"])

    def predict(self, user_ids: Any, item_ids: Any) -> Float32Array:
        """Predict the rating (explicit models) or preference (implicit models) of each pair.

        Parameters
        ----------
        user_ids, item_ids : array-like, shape (n,)
            Outside ids. Of an unknown user or item, the prediction has neither bias nor factors: what is left is the
            mean and the bias of the other side, or 0 in a model without them.

        Returns
        -------
        float32 array, shape (n,)

        Raises
        ------
        DataError
            If the lengths differ, or ids are of the wrong type.
        """
        fitted = self.fitted
        users = ids.look_up(fitted.user_ids, user_ids, "user_ids")
        items = ids.look_up(fitted.item_ids, item_ids, "item_ids")
        if len(users) != len(items):
            raise DataError(f"got {len(users)} user ids and {len(items)} item ids; expected as many of each")
        return self._predict(fitted, users, items)

    def predict_indices(self, users: Int32Array, items: Int32Array) -> Float32Array:
        """Predict like `predict`, for users and items given as rows of the factors.

        Parameters
        ----------
        users, items : int32 arrays, shape (n,)
            -1 stands for an unknown user or item.

        Returns
        -------
        float32 array, shape (n,)

        Raises
        ------
        ParameterError
            If the arrays are not of integers, differ in length, or name a row that there is not.
        """
        fitted = self.fitted
        users, items = as_rows("users", users, fitted.n_users), as_rows("items", items, fitted.n_items)
        if len(users) != len(items):
            raise ParameterError(f"got {len(users)} users and {len(items)} items; expected as many of each")
        return self._predict(fitted, users, items)

    def _predict(self, fitted: Fitted, users: Int32Array, items: Int32Array) -> Float32Array:
        kernels = get_backend(self.backend)
        return kernels.predict_pairs(users, items, fitted.factors, fitted.link, self.n_threads)

    def score(self, ratings: Any, y: None = None) -> float:
        """Return how good the model is on ratings, more being better: for searches of scikit-learn.

        Parameters
        ----------
        ratings : Interactions, table or SciPy sparse matrix
        y : None
            There is no target: ratings are a column of the table.

        Returns
        -------
        float
            The first of `validation_metrics`, -RMSE or nDCG@10.

        Examples
        --------
        >>> import fastmf
        >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
        >>> fastmf.ALS(n_factors=4).fit(ratings).score(ratings.to_arrow()) < 0
        True
        """
        metric = self.validation_metrics[0]
        found = evaluate(self, ratings, k=min(10, self.fitted.n_items), metrics=[metric])
        value = next(value for name, value in found.items() if name.partition("@")[0] == metric)
        return float("nan") if value is None else float(value if METRICS[metric].higher_is_better else -value)

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        exclude: str | Interactions | None = "seen",
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        cold: str = "skip",
        rerank: Reranking | None = None,
    ) -> Recommendations:
        """Find the k best items of each user.

        Parameters
        ----------
        users : array-like of ids, optional
            All users if None.
        k : int
            At most the size of the catalogue.
        exclude : "seen", Interactions or None
            What is never returned to a user: the items of his training ratings, the pairs given, or nothing.
        allow, deny : list of item ids, dict of user id to list of item ids, or Interactions; optional
            Items that alone may, or may not, be returned: to all users, or to each. No entry in ``allow``: no items.
        cold : {"skip", "popular", "include"}
            Users without training ratings get nothing, popular items, or what their factors say;
            `Recommendations.n_cold_users` counts them. Only "include" also recommends items without training ratings.
        rerank : Reranking, optional
            How the k items are chosen from a longer list, so that they differ, or give new items a chance. Scores stay
            those of the model, so they do not descend any more.

        Returns
        -------
        Recommendations
            Best first. A user with fewer than k candidates gets fewer.

        Raises
        ------
        UnknownIdError, ParameterError
            If a user id is unknown; if ``k`` is larger than the catalogue.
        """
        scorer = self._scorer()
        try:
            return scorer.recommend(users, k, exclude=exclude, allow=allow, deny=deny, cold=cold, rerank=rerank)
        except UnknownIdError as error:
            raise UnknownIdError(
                f"{error}; for people whom the model does not know use recommend_for or fastmf.Recommender"
            ) from None

    def recommend_to_parquet(
        self,
        path: PathLike,
        k: int = 10,
        *,
        users: Any = None,
        interactions: Any = None,
        exclude: str | Interactions | None = "seen",
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        cold: str = "skip",
        rerank: Reranking | None = None,
        features: Any = None,
        partitioned: bool = False,
        overwrite: bool = False,
    ) -> int:
        """Write the k best items of each user to Parquet, in bounded memory: a file, or ``partitioned`` a directory.

        The output has the columns of `Recommendations.to_arrow`. It appears whole or not at all: a call that was
        interrupted goes on where it stopped when it is made again. With ``interactions`` or ``features`` of people, the
        users are those of these, as in `recommend_for`. The other parameters are those of `recommend`.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        OutputExistsError
            If ``path`` exists and ``overwrite`` is false.
        """
        are_known = interactions is None and features is None
        if users is not None and not are_known:
            given = "features" if interactions is None else "interactions"
            raise ParameterError(
                f"got {named('users')} and {named(given)}; expected one of them: {_NAMERS[given]} name their users"
            )
        scorer = self._scorer() if are_known else self._scorer_for(interactions, cold, features)
        batches = scorer.recommend_in_batches(
            users, k, exclude=exclude, allow=allow, deny=deny, cold=cold, rerank=rerank
        )
        return write_recommendations(batches, path, partitioned=partitioned, overwrite=overwrite, shown=self.verbose)

    def _scorer(self) -> Scorer:
        return Scorer(self.fitted, self.backend, self.n_threads)

    def save(
        self,
        path: PathLike,
        *,
        overwrite: bool = False,
        source: Source | None = None,
        factor_dtype: str = "float32",
    ) -> None:
        """Write the model to a directory, whole or not at all; `fastmf.load` reads it back.

        ``card.md`` in it describes the model for people, and may be edited.

        Parameters
        ----------
        path : path-like
        overwrite : bool
            Whether an existing model may be replaced.
        source : dict, optional
            Where the data came from, for the manifest.
        factor_dtype : {"float32", "float16"}
            How tables of factors are stored. As float16 they take half the bytes and keep three significant digits; a
            loaded model computes in float32 all the same. Biases stay float32.

        Raises
        ------
        OutputExistsError
            If ``path`` exists and ``overwrite`` is false, or it is something else than a model.
        ParameterError
            If a factor is larger than float16 has numbers, ±65,504.
        """
        model_directory.save(copy.copy(self), path, overwrite=overwrite, source=source, factor_dtype=factor_dtype)
