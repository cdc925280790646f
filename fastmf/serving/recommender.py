"""`fastmf.Recommender`: a model that answers many threads at once, and can be replaced while it does."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np

from fastmf.answering.answers import Recommendations, Similar
from fastmf.answering.asked import read_once
from fastmf.answering.plain_arrays import require_threads
from fastmf.answering.scoring import ItemFilter
from fastmf.common.locks import ProcessLock
from fastmf.common.parameters import require_integer
from fastmf.common.work_log import logged
from fastmf.errors import ParameterError
from fastmf.models.base import Model
from fastmf.reading.interactions import Interactions
from fastmf.reading.parquet import PathLike
from fastmf.serving.filters import ids_of, require_name
from fastmf.serving.one_user import answer_one
from fastmf.serving.requests import Wishes, read_request, read_request_for, require_k
from fastmf.serving.searching import Search
from fastmf.serving.state import State, open_model
from fastmf.serving.statistics import Statistics
from fastmf.serving.warming import warm_up
from fastmf_kernels._types import Float32Array

T = TypeVar("T")


class Recommender:
    """What a service holds: answers requests for recommendations from many threads, and counts them.

    Every method may be called from any thread at any time. A request reads the model and the filters once, when it
    starts: it is answered by one model, also while `swap` replaces it. The search releases the interpreter lock, and
    with ``n_threads=1`` no request starts a thread. Answers are those of the model's own methods.

    Parameters
    ----------
    model_or_path : Model or path-like
        A fitted model, or the directory of one. Later fits of that model object have no effect here.
    filters : dict of str to mask or ids, optional
        Named sets of items for requests to choose from; see `set_filter`.
    n_threads : int, optional
        Threads for each request, 1 by default: a service answers several requests at once. None: all cores, for
        requests of many users.
    n_combinations : int
        How many combinations of filters stay laid out, at least 1: those that were used last. Each takes up to 1.3
        times the memory of the factors of its items.

    Raises
    ------
    ParameterError
        If a parameter is none of these, or a filter is not valid.
    NotFittedError, ModelError
        If the model is not fitted; if there is no valid model at the path.

    Examples
    --------
    >>> import fastmf
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> model = fastmf.ALS(n_factors=4).fit(ratings)
    >>> recommender = fastmf.Recommender(model, filters={"in stock": [2, 3, 5, 7, 11]})
    >>> found = recommender.recommend([0, 999], k=3, filters="in stock")
    >>> found.by_popularity.tolist()
    [False, True]
    >>> recommender.stats()["unknown_users"]
    1
    """

    def __init__(
        self,
        model_or_path: Model | PathLike,
        *,
        filters: Mapping[str, Any] | None = None,
        n_threads: int | None = 1,
        n_combinations: int = 16,
    ) -> None:
        require_threads(n_threads)
        require_integer("n_combinations", n_combinations, minimum=1)
        if filters is not None and not isinstance(filters, Mapping):
            raise ParameterError(f"filters are a {type(filters).__name__}; expected a dict of names to masks or ids")
        self._n_threads, self._statistics, self._changing = n_threads, Statistics(), ProcessLock()
        state = State(open_model(model_or_path, n_threads, False), {}, int(n_combinations))
        given = {require_name(name): ids_of(name, items, state.fitted) for name, items in (filters or {}).items()}
        # Requests read this reference once; only threads that hold the lock `_changing` replace it.
        self._state = state.with_filters(given)

    def __reduce__(self) -> NoReturn:
        """Refuse to be sent to another process."""
        raise TypeError("a Recommender cannot be pickled; make one in each process, from the path of the model")

    @property
    def model(self) -> Model:
        """The model that answers at the moment: a copy that shares the arrays, with the ``n_threads`` given here."""
        return self._state.model

    @property
    def filters(self) -> list[str]:
        """The names of the filters that there are."""
        return list(self._state.filter_ids)

    def recommend(
        self,
        users: Any,
        k: int = 10,
        *,
        exclude: str | Interactions | None = "seen",
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        filters: Any = (),
        cold: str = "popular",
    ) -> Recommendations:
        """Find the k best items of users.

        Users that the model does not know, or that have no training rating, get popular items, and
        `Recommendations.by_popularity` says so. ``users`` of the answer is -1 for those that the model does not know.

        Parameters
        ----------
        users : id or array-like of ids
        k : int
            At most the size of the catalogue.
        exclude : "seen", Interactions or None
            What is never returned to a user: the items of his training ratings, the pairs given, or nothing.
        allow, deny : list of item ids, dict of user id to list of item ids, or Interactions; optional
            Items that alone may, or may not, be returned: to all users, or to each. No entry in ``allow``: no items.
        filters : str or list of str
            Names of filters, all of which an item has to pass. "not in stock" leaves the items of "in stock" out.
        cold : {"popular", "skip", "include"}
            Users of whom nothing is known get popular items or nothing. "include": users without training ratings get
            what their factors say, items without training ratings are recommended, and users that the model does not
            know get popular items.

        Returns
        -------
        Recommendations
            A row for each of ``users``, in their order.

        Raises
        ------
        ParameterError, DataError
            If ``k`` is larger than the catalogue, a filter is unknown, or ids are of another type than the model's.
        """
        wishes = Wishes(k, exclude, allow, deny, read_once(filters), cold)

        def answer(state: State) -> Recommendations:
            found = answer_one(state, users, wishes)
            return Search(state, read_request(state, users, wishes)).run() if found is None else found

        return self._measured(answer, _counts_of)

    def recommend_for(
        self,
        interactions: Any,
        k: int = 10,
        *,
        exclude: str | Interactions | None = "seen",
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        filters: Any = (),
        cold: str = "popular",
    ) -> Recommendations:
        """Find the k best items of people from their ratings alone; see `fastmf.models.Model.recommend_for`.

        People of whom nothing is known that the model can use get popular items. The parameters that are not described
        here are those of `recommend`.

        Parameters
        ----------
        interactions : Interactions, table or SciPy sparse matrix
            Ratings of the people to recommend to.
        cold : {"popular", "skip"}
            People of whom nothing is known get popular items or nothing.

        Returns
        -------
        Recommendations
            A row for each user of ``interactions``, in the order of their ids.

        Raises
        ------
        ParameterError, DataError, ModelError
            As `recommend` and the model's `recommend_for` do.

        Examples
        --------
        >>> import fastmf
        >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
        >>> recommender = fastmf.Recommender(fastmf.ALS(n_factors=4).fit(ratings))
        >>> newcomer = fastmf.Interactions.from_arrays([1234, 1234], ratings.item_ids[:2], [5, 1])
        >>> recommender.recommend_for(newcomer, k=3).items.shape
        (1, 3)
        """
        wishes = Wishes(k, exclude, allow, deny, filters, cold)
        return self._measured(
            lambda state: Search(state, read_request_for(state, interactions, wishes)).run(), _counts_of
        )

    def similar_items(
        self,
        item_ids: Any = None,
        k: int = 10,
        *,
        vector: Any = None,
        measure: str = "cosine",
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
    ) -> Similar:
        """Find the k nearest items of items or vectors; see `fastmf.models.Model.similar_items`."""

        def answer(state: State) -> Similar:
            return state.model.similar_items(item_ids, k, vector=vector, measure=measure, allow=allow, deny=deny)

        return self._measured(answer, lambda found: {})

    def predict(self, user_ids: Any, item_ids: Any) -> Float32Array:
        """Predict the rating or preference of each pair; see `fastmf.models.Model.predict`."""
        return self._measured(lambda state: state.model.predict(user_ids, item_ids), lambda found: {})

    def set_filter(self, name: str, items: Any) -> None:
        """Add a filter, or replace the one of that name; requests that have begun keep the one that they found.

        Parameters
        ----------
        name : str
            Such as "in stock"; it may not start with "not ".
        items : bool array, shape (n_items,), or collection of item ids
            A mask in the order of the ``item_ids`` of the model, or ids. The ids are kept: after `swap` the filter has
            the same items. Ids that the model does not know are ignored until a model does. Where another thread may
            swap the model meanwhile, give ids: a mask is read as one of the model that answers then.

        Raises
        ------
        ParameterError, DataError
            If the name or the items are not valid.

        Examples
        --------
        >>> import fastmf
        >>> model = fastmf.Popularity().fit(fastmf.Interactions.from_arrays([1, 1, 2], ["tea", "rum", "rum"]))
        >>> recommender = fastmf.Recommender(model)
        >>> recommender.set_filter("for adults", ["rum"])
        >>> found = recommender.recommend([3], k=2, filters=["not for adults"])
        >>> found.to_arrow()["item_id"].to_pylist()
        ['tea']
        """
        require_name(name)
        with self._changing.of_this_process:
            state = self._state
            self._state = state.with_filters({**state.filter_ids, name: ids_of(name, items, state.fitted)})

    def remove_filter(self, name: str) -> None:
        """Remove a filter.

        Raises
        ------
        ParameterError
            If there is none of that name.
        """
        with self._changing.of_this_process:
            state = self._state
            if not isinstance(name, str) or name not in state.filter_ids:
                there_are = ", ".join(map(repr, state.filter_ids)) or "none"
                raise ParameterError(f"there is no filter {name!r}; expected one of those there are: {there_are}")
            self._state = state.with_filters({other: ids for other, ids in state.filter_ids.items() if other != name})

    def swap(self, model_or_path: Model | PathLike, *, verify: bool = False) -> None:
        """Replace the model while requests run.

        The new model is loaded and laid out as the old one is before requests find it; until then both are in memory.
        Requests that have begun are answered by the old one. Where anything fails, the old model stays.

        Parameters
        ----------
        model_or_path : Model or path-like
        verify : bool
            Whether to compare every file of the directory with its checksum first.

        Raises
        ------
        ParameterError, NotFittedError, ModelError
            As for the model of a new `Recommender`.
        DataError
            If its ids are of another type than those of the filters.
        """
        try:
            with logged("swapping the model"):
                self._replace(model_or_path, verify)
        except BaseException:
            self._statistics.add("failed_swaps")
            raise
        self._statistics.add("swaps")

    def _replace(self, model_or_path: Model | PathLike, verify: bool) -> None:
        model = open_model(model_or_path, self._n_threads, verify)
        with self._changing.of_this_process:
            state = self._state.with_model(model)
            # Without filters: those of the old model are laid out, and others would push them out.
            warm_up(state, min(10, state.fitted.n_items))
            self._state = state

    def warmup(self, k: int = 10) -> None:
        """Do now what first requests would do: load kernels, lay items out, read the model's pages.

        Each filter is laid out by itself; combinations of several are, when they are first asked for. `stats` does not
        count these requests.

        Parameters
        ----------
        k : int
            That of the requests to come, at most the size of the catalogue.

        Raises
        ------
        ParameterError
            If ``k`` is not valid.
        """
        state = self._state
        require_k(state.fitted, k)
        warm_up(state, int(k), state.filter_ids)

    def stats(self) -> dict[str, Any]:
        """Return what was counted since the start, or since `reset_stats`.

        Returns
        -------
        dict
            ``requests``, ``users``, ``by_popularity`` (users who got popular items), ``unknown_users``, ``errors``,
            ``swaps`` and ``failed_swaps``; and ``latency``, how long requests took, in seconds: the quantiles
            ``p50``, ``p90``, ``p99`` (4 % too high at most), ``max`` and ``mean``, each None before any. A request
            is a call of `recommend`, `recommend_for`, `similar_items` or `predict`; failed ones count as errors only.

        Examples
        --------
        >>> import fastmf
        >>> model = fastmf.Popularity().fit(fastmf.Interactions.from_arrays([1, 1, 2], [1, 2, 2]))
        >>> fastmf.Recommender(model).stats()["requests"]
        0
        """
        return self._statistics.read()

    def reset_stats(self) -> None:
        """Count from 0 again."""
        self._statistics.reset()

    def _measured(self, answer: Callable[[State], T], counts_of: Callable[[T], dict[str, int]]) -> T:
        """Answer a request from the state as it is now, and count it."""
        started = time.perf_counter()
        try:
            found = answer(self._state)
        except BaseException:
            self._statistics.add("errors")
            raise
        self._statistics.add_request(time.perf_counter() - started, **counts_of(found))
        return found


def _counts_of(found: Recommendations) -> dict[str, int]:
    by_popularity = 0 if found.by_popularity is None else int(np.count_nonzero(found.by_popularity))
    n_unknown = int(np.count_nonzero(found.users < 0))
    return {"users": len(found.users), "by_popularity": by_popularity, "unknown_users": n_unknown}
