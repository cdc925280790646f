"""New users who answer questions: items chosen by `fastmf.onboarding`, beside other ways to choose them.

For the suite onboarding, ``--data`` and ``--sets`` name files as for fold-in; without ``--sets`` they are those of
movielens-1m, movielens-100k and anime-5k. A fifth of the users is new: no fit knows them. A random half of the ratings
of each says what he can answer, the other half is the test part, and no question can be answered from it. A user
answers a question with his rating, or that he has chosen the item; to other questions he gives no answer, and nothing
is made of that. He is asked 3, 5 or 10 questions, or until he has given so many answers. Models of ratings are measured
by RMSE, those of implicit feedback by nDCG@10 and Recall@20 among all items but those that he could have answered. Who
has not answered anything gets popular items. The differences from the most popular items as questions have 95 %
intervals of the bootstrap over users.
"""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastmf
from fastmf import Interactions
from fastmf.measuring.bootstrap import interval, totals_of_samples
from fastmf.measuring.user_values import UserValues
from fastmf.models import MODELS, Model
from fastmf.reading import ids
from fastmf_bench import people
from fastmf_bench.contest import Contestant
from fastmf_bench.data_sets import files_of_ratings
from fastmf_bench.pace import Pace, Task
from fastmf_bench.session import Session
from fastmf_kernels._types import BoolArray, Int32Array

SUITE = "onboarding"
NUMBERS = (3, 5, 10)
MODELS_OF = {"ratings": "ALS", "choices": "ImplicitALS"}
POPULAR, NOBODY = "most popular", "nothing"
# What is asked at most, where people are asked until they have answered so often; the most popular to draw from.
_LONGEST, _POOL = 300, 200
_NEW, _TEST, _N_NDCG, _N_RECALL, _CI = 0.2, 0.5, 10, 20, 0.95


class Subject(NamedTuple):
    """A model, and the ratings.

    Attributes
    ----------
    file : str
    kind : {"ratings", "choices"}
    seed, n_threads : int
    """

    file: str
    kind: str
    seed: int
    n_threads: int


class Setting(NamedTuple):
    """A fitted model, the ratings of its users, and what its new users can answer and are tested on.

    Attributes
    ----------
    model : Model
    known : Interactions
        Ratings of the users of the model.
    can_answer, test : Interactions
        In one id space, that of the new users.
    places : int32 array
        The item of the model for each item of this space, -1 if it has no training rating.
    """

    model: Model
    known: Interactions
    can_answer: Interactions
    test: Interactions
    places: Int32Array


def run(session: Session) -> None:
    """Measure every way to choose questions on each data set."""
    options = session.options
    if options.data is None:
        session.leave_out(SUITE, "it needs real data, in the directory that --data names")
        return
    files: list[Path] = []
    with session.noting(SUITE):
        files = files_of_ratings(options.data, options.sets, ("movielens-1m", "movielens-100k", "anime-5k"))
    for file in files[:1] if options.quick else files:
        for kind, name in MODELS_OF.items():
            subject = Subject(str(file), kind, options.seeds[0], options.n_threads)
            contestants = [
                Contestant(way, "onboarding.questions", {"subject": subject, "way": way}) for way in (NOBODY, *WAYS)
            ]
            settings = {"seed": subject.seed, "model": name}
            session.race(SUITE, f"new users with {kind}", file.parent.name, settings, contestants, n_laps=0)


def prepare(subject: Subject) -> Setting:
    """Fit the model to four fifths of the users, and part the ratings of the others."""
    whole = fastmf.read_parquet(subject.file, duplicates="last")
    is_new = np.zeros(whole.n_users, bool)
    is_new[np.random.default_rng(subject.seed).permutation(whole.n_users)[: round(_NEW * whole.n_users)]] = True
    known = whole.take(np.flatnonzero(~is_new[whole.users]))
    new = Interactions.from_arrow(whole.take(np.flatnonzero(is_new[whole.users])).to_arrow())
    model = MODELS[MODELS_OF[subject.kind]](seed=subject.seed, n_threads=subject.n_threads)
    if subject.kind == "ratings":
        model.fit(known)
    else:
        new = _as_choices(new)
        model.fit(_as_choices(known))
    can_answer, test = fastmf.split.per_user(new, _TEST, seed=subject.seed)
    places = ids.look_up(model.item_ids, new.item_ids, "item_ids")
    is_known = (places >= 0) & (model.fitted.counts.of_items[places] > 0)
    return Setting(model, known, can_answer, test, np.where(is_known, places, -1))


def _as_choices(ratings: Interactions) -> Interactions:
    return dataclasses.replace(ratings, ratings=np.ones(ratings.n_ratings, np.float32))


def _designed(setting: Setting, n: int, seed: int) -> Int32Array:
    return fastmf.onboarding(setting.model, n).items


def _designed_for_answers(setting: Setting, n: int, seed: int) -> Int32Array:
    return fastmf.onboarding(setting.model, n, popularity_weight=0.25).items


def _most_popular(setting: Setting, n: int, seed: int) -> Int32Array:
    return np.argsort(-setting.model.fitted.counts.of_items, kind="stable")[:n].astype(np.int32)


def _random(setting: Setting, n: int, seed: int) -> Int32Array:
    return np.random.default_rng(seed).permutation(_most_popular(setting, _POOL, seed))[:n]


def _popularity_times_entropy(setting: Setting, n: int, seed: int) -> Int32Array:
    """Order items by popularity × entropy of their ratings (Rashid et al., IUI 2002)."""
    counts, entropies = setting.model.fitted.counts.of_items, np.zeros(setting.model.fitted.n_items)
    known = setting.known
    places = ids.look_up(setting.model.item_ids, known.item_ids, "item_ids")[known.items]
    for value in np.unique(known.ratings):
        shares = np.bincount(places[known.ratings == value], minlength=len(counts)) / np.maximum(1, counts)
        entropies -= shares * np.log(np.where(shares > 0, shares, 1))
    return np.argsort(-counts * entropies, kind="stable")[:n].astype(np.int32)


WAYS: dict[str, Callable[[Setting, int, int], Int32Array]] = {
    "fastmf.onboarding": _designed,
    "fastmf.onboarding, weight 0.25": _designed_for_answers,
    POPULAR: _most_popular,
    "random of the 200 most popular": _random,
    "popularity x entropy": _popularity_times_entropy,
}
"""How items are chosen, as functions of the setting, the number of items, and a seed."""


def answers(setting: Setting, questions: Int32Array, n: int, is_of_answers: bool) -> Interactions:
    """Return the answers of new users to the first n questions, or their first n answers; in their id space.

    Parameters
    ----------
    setting : Setting
    questions : int32 array
        Items of the model, in the order in which they are asked about.
    n : int
    is_of_answers : bool
        Whether questions are asked until n answers are given; of all of ``questions``.
    """
    never = len(questions)
    turns = np.full(setting.model.fitted.n_items + 1, never)  # the last entry is for items that are not known
    turns[questions] = np.arange(never)
    pairs = setting.can_answer
    turn = turns[setting.places][pairs.items]
    if not is_of_answers:
        return pairs.take(np.flatnonzero(turn < min(n, never)))
    order = np.lexsort((turn, pairs.users))
    starts = np.concatenate([[0], np.cumsum(np.bincount(pairs.users, minlength=pairs.n_users))])
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order)) - starts[pairs.users[order]]
    return pairs.take(np.flatnonzero((turn < never) & (number < n)))


def measure(setting: Setting, given: Interactions) -> dict[str, UserValues]:
    """Return the metrics of new users who have given some answers."""
    model = setting.model
    if not model.is_implicit:
        test = setting.test.take(np.flatnonzero(setting.places[setting.test.items] >= 0))
        of_model = dataclasses.replace(test, items=setting.places[test.items].astype(np.int32), item_ids=model.item_ids)
        errors = (test.ratings - people.predictions(people.folded(model, given), of_model)) ** 2
        sums, counts = np.bincount(test.users, errors, test.n_users), np.bincount(test.users, minlength=test.n_users)
        return {"RMSE": UserValues(sums.astype(np.float64), counts.astype(np.float64), is_root=True)}
    found = model.recommend_for(given, k=_N_RECALL, deny=setting.can_answer, cold="popular")
    relevant = setting.test
    is_hit, n_relevant = _hits(setting, found.items), np.bincount(relevant.users, minlength=relevant.n_users)
    discounts = 1 / np.log2(np.arange(2, _N_NDCG + 2))
    ideal = np.concatenate([[0], np.cumsum(discounts)])[np.minimum(n_relevant, _N_NDCG)]
    weights = (n_relevant > 0).astype(np.float64)
    ndcg = is_hit[:, :_N_NDCG] @ discounts / np.where(weights > 0, ideal, 1)
    recall = is_hit.sum(axis=1) / np.maximum(n_relevant, 1)
    return {f"nDCG@{_N_NDCG}": UserValues(ndcg, weights), f"Recall@{_N_RECALL}": UserValues(recall, weights)}


def _hits(setting: Setting, items: Int32Array) -> BoolArray:
    """Tell which recommended items are in the test part, shape (n_users, k)."""
    n_items = setting.model.fitted.n_items
    relevant = setting.places[setting.test.items].astype(np.int64)
    keys = setting.test.users[relevant >= 0] * np.int64(n_items) + relevant[relevant >= 0]
    rows = np.arange(len(items), dtype=np.int64)[:, np.newaxis]
    return np.isin(rows * n_items + items, keys) & (items >= 0)


def of_questions(_: Pace, subject: Subject, way: str) -> dict[str, Any]:
    """Ask new users, and measure what the model makes of their answers, beside the most popular questions."""
    subject = Subject(*subject)
    setting = prepare(subject)
    if way == NOBODY:
        found = measure(setting, setting.can_answer.take(np.empty(0, np.int64)))
        return {name: _value(values) for name, values in found.items()}
    n = min(_LONGEST, int(np.count_nonzero(setting.model.fitted.counts.of_items)))
    chosen = {name: WAYS[name](setting, n, subject.seed) for name in {way, POPULAR}}
    figures: dict[str, Any] = {}
    for is_of_answers, number in itertools.product((False, True), NUMBERS):
        given = {name: answers(setting, questions, number, is_of_answers) for name, questions in chosen.items()}
        found, popular = (measure(setting, given[name]) for name in (way, POPULAR))
        what = f"{number} {'answers' if is_of_answers else 'questions'}"
        if not is_of_answers:
            figures[f"answers to {what}"] = given[way].n_ratings / setting.can_answer.n_users
        for name, values in found.items():
            figures[f"{name}, {what}"] = _value(values)
            if way != POPULAR:
                figures[f"{name}, {what}, difference"] = _difference(values, popular[name], subject.seed)
    return figures


def _value(values: UserValues) -> float:
    return float(values.ratios(values.sums.sum(), values.weights.sum()))


def _difference(values: UserValues, others: UserValues, seed: int) -> list[float | None]:
    """Return the difference between two metrics of the same users, and the ends of its interval."""
    totals = totals_of_samples([values, others], seed)
    low, high = interval(totals[:, 0] - totals[:, 1], _CI, len(values.sums))
    return [_value(values) - _value(others), low, high]


TASKS: dict[str, Task] = {"onboarding.questions": of_questions}
