"""Options of what is known of items and users beside their ratings, and how such files are read."""

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastmf.cli.configuration import is_shared
from fastmf.cli.options import note
from fastmf.errors import DataError, ParameterError, QualityWarning

if TYPE_CHECKING:
    from fastmf import Features
    from fastmf.models import Model

SIDES = ("item", "user")
_OPTION_OF = {"columns": "columns", "categories": "categories", "feature": "name", "value": "value"}


def add_feature_options(parser: argparse.ArgumentParser, sides: tuple[str, ...] = SIDES) -> None:
    """Add the options that name files of features, and the columns in them."""
    group = parser.add_argument_group("features")
    for side in sides:
        group.add_argument(
            f"--{side}-features",
            metavar="FILE",
            help=f"what is known of the {side}s, in Parquet: a row each, or with --{side}-feature-name a row for each "
            f"pair of {_a(side)} and a feature",
        )
        group.add_argument(
            f"--{side}-feature-id", metavar="COLUMN", help=f"column of {side} ids there (default: that of the ratings)"
        )
        group.add_argument(
            f"--{side}-feature-columns", nargs="+", metavar="COLUMN", help="columns to read there (default: all)"
        )
        group.add_argument(
            f"--{side}-feature-categories",
            nargs="+",
            metavar="COLUMN",
            help="columns of integers there that are codes of categories, not numbers",
        )
        group.add_argument(
            f"--{side}-feature-name",
            metavar="COLUMN",
            help="column of features, where pairs have a row each; --duplicates holds for these, too",
        )
        group.add_argument(
            f"--{side}-feature-value", metavar="COLUMN", help="column of their numbers (default: all are 1)"
        )


def read_features(parsed: argparse.Namespace, models: "dict[str, Model]") -> "dict[str, Features]":
    """Return the features that are asked for, as arguments of `fit`: ``item_features``, ``user_features``.

    Those that a configuration has for any command are left out where ``models`` do not take them.

    Raises
    ------
    ParameterError
        If options do not go together.
    DataError
        If a file cannot be used as it is.
    """
    if not all(model.takes_features for model in models.values()):
        return {}
    given = {f"{side}_features": read_side(parsed, side) for side in SIDES}
    return {name: features for name, features in given.items() if features is not None}


def read_side(parsed: argparse.Namespace, side: str) -> "Features | None":
    """Return the features of a side; None if they are not asked for.

    Raises
    ------
    ParameterError, DataError
        As `read_features`.
    """
    import fastmf

    path = getattr(parsed, f"{side}_features")
    if path is None:
        return None
    with _naming_options(side):
        features = fastmf.Features.from_parquet(path, **_settings(parsed, side))
    note(f"read {features.n_features:,} features of {len(features):,} {side}s", parsed)
    return features


@contextmanager
def _naming_options(side: str) -> Iterator[None]:
    """Let errors and warnings of reading name the options of this side."""
    names = {name: f"--{side}-feature-{option}" for name, option in _OPTION_OF.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (DataError, ParameterError) as error:
            raise type(error)(f"--{side}-features: {error.in_words_of(names.get)}") from error
    for warning in caught:
        message = warning.message
        if isinstance(message, QualityWarning):
            message = QualityWarning(f"--{side}-features: {message.in_words_of(names.get)}")
        warnings.warn(message, stacklevel=2)


def described_features(features: "dict[str, Features]", parsed: argparse.Namespace) -> dict[str, Any]:
    """Return what the features are, for programs."""
    return {
        name: {"file": getattr(parsed, name), "n_ids": len(given), "n_features": given.n_features}
        for name, given in features.items()
    }


def require_uses(parsed: argparse.Namespace, sides: tuple[str, ...] = SIDES) -> None:
    """Check before anything is read that options on a file of features come with one, and go together.

    Raises
    ------
    ParameterError
    """
    for side in sides:
        of_file = f"{side}_features"
        for name in ("id", "columns", "categories", "name", "value"):
            destination = f"{side}_feature_{name}"
            if getattr(parsed, destination) is None or is_shared(parsed, destination):
                continue
            option = f"--{destination.replace('_', '-')}"
            if getattr(parsed, of_file) is None:
                raise ParameterError(f"{option} is for the file that --{side}-features names; add it, or leave it out")
            if name == "value" and getattr(parsed, f"{side}_feature_name") is None:
                raise ParameterError(f"{option} belongs to --{side}-feature-name; add that, or leave {option} out")
            if name in ("columns", "categories") and getattr(parsed, f"{side}_feature_name") is not None:
                raise ParameterError(
                    f"{option} is for a file with a row for each {side}, and --{side}-feature-name for one with a row "
                    "for each pair; leave one of them out"
                )


def require_taken(models: "dict[str, Model]", parsed: argparse.Namespace) -> None:
    """Check before anything is read that each model that may be trained takes features, where some are given.

    Raises
    ------
    ParameterError
    """
    for side in SIDES:
        if getattr(parsed, f"{side}_features") is None or is_shared(parsed, f"{side}_features"):
            continue
        for name, model in models.items():
            if not model.takes_features:
                raise ParameterError(
                    f"--{side}-features is not for --model {name}, which learns nothing from features; name a model "
                    "that does, als or implicit-als, or leave it out"
                )


def _settings(parsed: argparse.Namespace, side: str) -> dict[str, Any]:
    """Return the arguments of `Features.from_parquet`."""

    def given(name: str) -> Any:
        return getattr(parsed, f"{side}_feature_{name}")

    own_id = given("id")
    settings: dict[str, Any] = {"id": getattr(parsed, f"{side}_column") if own_id is None else own_id}
    if given("name") is not None:
        return settings | {"feature": given("name"), "value": given("value"), "duplicates": parsed.duplicates}
    return settings | {"columns": given("columns"), "categories": given("categories") or ()}


def _a(side: str) -> str:
    return "an item" if side == "item" else "a user"
