"""Similar items and users, and the best users of items."""

from collections.abc import Iterable
from typing import Any

from fastmf.answering.answers import Similar, UsersForItems
from fastmf.answering.neighbours import Wanted, similar
from fastmf.answering.scoring import ItemFilter
from fastmf.answering.users_for_items import ItemScorer
from fastmf.models.learned import LearnedState
from fastmf.reading.interactions import Interactions


class AnswersNeighbours(LearnedState):
    """Base of models: what a fitted model answers about items and users that are close to others."""

    backend: str
    n_threads: int | None

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
        """Find the k items whose factors are nearest to those of an item, the item itself left out, or to a vector.

        Biases do not count. Items with neither training ratings nor features have no neighbours, and are
        nobody's neighbour.

        Parameters
        ----------
        item_ids : id or array-like of ids
        k : int
            Less than the size of the catalogue; for vectors, at most that.
        vector : array-like of float, shape (n_factors,) or (n, n_factors)
            Given in the place of ``item_ids``.
        measure : {"cosine", "dot", "euclidean"}
            The largest cosine or dot product, or the smallest distance. Distances are exact, and so is their order.
        allow, deny : iterable of item ids, optional
            Items that alone may, or may not, be returned. Ids that the model does not know cannot match.

        Returns
        -------
        Similar
            Nearest first; an item with fewer than k neighbours gets fewer.

        Raises
        ------
        ParameterError
            If both or neither of ``item_ids`` and ``vector`` is given, a vector is not finite or of another length, or
            another parameter is not valid.
        UnknownIdError, DataError
            If an id is unknown; if ids are of another type than those of the model.

        Examples
        --------
        >>> import fastmf
        >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
        >>> model = fastmf.ALS(n_factors=4).fit(ratings)
        >>> between = (model.item_factors[3] + model.item_factors[5]) / 2
        >>> found = model.similar_items(vector=between, k=2, measure="euclidean", deny=[3, 5])
        >>> found.to_arrow().column_names
        ['vector', 'rank', 'similar_item_id', 'score']
        """
        wanted = Wanted("item", k, measure, allow, deny)
        return similar(self.fitted, item_ids, vector, wanted, self.backend, self.n_threads)

    def similar_users(
        self,
        user_ids: Any = None,
        k: int = 10,
        *,
        vector: Any = None,
        measure: str = "cosine",
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
    ) -> Similar:
        """Find the k users whose factors are nearest to those of a user, the user left out, or to a vector.

        Parameters, answers and errors are those of `similar_items`, with users in the place of items.

        Parameters
        ----------
        user_ids : id or array-like of ids
        k : int
        vector : array-like of float, shape (n_factors,) or (n, n_factors)
        measure : {"cosine", "dot", "euclidean"}
        allow, deny : iterable of user ids, optional

        Returns
        -------
        Similar
        """
        wanted = Wanted("user", k, measure, allow, deny)
        return similar(self.fitted, user_ids, vector, wanted, self.backend, self.n_threads)

    def users_for_item(
        self,
        items: Any = None,
        k: int = 10,
        *,
        exclude: str | Interactions | None = "seen",
        allow: ItemFilter = None,
        deny: ItemFilter = None,
        cold: str = "skip",
    ) -> UsersForItems:
        """Find the k best users of each item: those for whom the model predicts the most.

        Scores are those of `predict`, and the search is exact. What users have rated is laid out by item at the first
        call, and kept, with an index of the users.

        Parameters
        ----------
        items : id or array-like of ids, optional
            All items if None.
        k : int
            At most the number of users.
        exclude : "seen", Interactions or None
            Who is never returned for an item: users who have rated it in training, the pairs given, or nobody.
        allow, deny : list of user ids, dict of item id to list of user ids, or Interactions; optional
            Users who alone may, or may not, be returned: for all items, or for each. No entry in ``allow``: no users.
        cold : {"skip", "include"}
            Items with neither training ratings nor features get nobody, or whom their factors say;
            `UsersForItems.n_cold_items` counts them. Only "include" also returns users who have neither.

        Returns
        -------
        UsersForItems
            Best first. An item with fewer than k candidates gets fewer.

        Raises
        ------
        UnknownIdError, DataError
            If an item id is unknown; if ids are of another type than those of the model.
        ParameterError
            If ``k`` is larger than the number of users, or another parameter is not valid.

        Examples
        --------
        >>> import fastmf
        >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
        >>> model = fastmf.ALS(n_factors=4).fit(ratings)
        >>> model.users_for_item([3, 5], k=4).to_arrow().column_names
        ['item_id', 'rank', 'user_id', 'score']
        """
        scorer = ItemScorer(self.fitted, self.backend, self.n_threads)
        return scorer.users_for(items, k, exclude, allow, deny, cold)
