"""Ratings to validate on: the options that name them or hold them out, and how the parts are read."""

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from fastmf.cli.options import fraction, note, read_ratings
from fastmf.errors import DataError, ParameterError

if TYPE_CHECKING:
    from fastmf import Interactions

# As in `fastmf.split.hold_out`, which is not imported before it is needed: it brings NumPy.
_RULES = {
    "random": "any of the ratings",
    "user": "a share of each user's",
    "last": "the last one of each user",
    "time": "the newest of all",
}
_NEED_TIMES = ("last", "time")
DEFAULT_SHARE = 0.1


class Parts(NamedTuple):
    """Ratings to train on and to validate on.

    Attributes
    ----------
    train : Interactions
    validation : Interactions or None
    whole : Interactions or None
        Both together, where the model is to be trained on them in the end.
    """

    train: "Interactions"
    validation: "Interactions | None" = None
    whole: "Interactions | None" = None


def add_validation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name ratings to validate on, or hold them out."""
    group = parser.add_argument_group("validation, after each epoch (default: none)")
    group.add_argument("--validation", metavar="FILE", help="ratings to evaluate on, in Parquet with the same columns")
    group.add_argument(
        "--validation-fraction", type=fraction, metavar="F", help="share of ratings to hold out and evaluate on"
    )
    rules = "; ".join(f"{name}: {rule}" for name, rule in _RULES.items())
    group.add_argument(
        "--validation-by",
        choices=tuple(_RULES),
        help=f"which ratings to hold out (default: random, and 0.1 of them). {rules}",
    )
    group.add_argument(
        "--refit",
        action="store_true",
        help="in the end train again, on all ratings and for the best number of epochs, and save that model",
    )


def is_asked_for(parsed: argparse.Namespace) -> bool:
    """Whether there is to be a validation set."""
    return any(given is not None for given in (parsed.validation, parsed.validation_fraction, parsed.validation_by))


def require_consistent(parsed: argparse.Namespace) -> None:
    """Check the options against each other, before anything is read.

    Raises
    ------
    ParameterError
    """
    by = parsed.validation_by
    if parsed.validation is not None and (by is not None or parsed.validation_fraction is not None):
        other = "--validation-by" if by is not None else "--validation-fraction"
        raise ParameterError(f"--validation names the ratings to validate on, and {other} holds some out; give one")
    if by == "last" and parsed.validation_fraction is not None:
        raise ParameterError(
            "--validation-by last holds out one rating of each user, and --validation-fraction a share; leave the "
            "share out, or choose --validation-by time, user or random"
        )
    if by in _NEED_TIMES and parsed.timestamp_column is None:
        raise ParameterError(
            f"--validation-by {by} goes by the times of ratings; name their column with --timestamp-column"
        )
    if parsed.refit and not is_asked_for(parsed):
        raise ParameterError(
            "--refit trains again for the epochs that were best in validation, but there is no validation set; add "
            "--validation-fraction, --validation-by or --validation"
        )


def read_parts(parsed: argparse.Namespace) -> Parts:
    """Read the ratings and divide them as the options say.

    Raises
    ------
    DataError
        If the validation ratings do not go with the others, or do not tell how good a model is.
    """
    parts = _read_parts(parsed)
    if parts.validation is not None:
        from fastmf.tuning.held_out import require_telling

        require_telling(parts.train, parts.validation)
    return parts


def _read_parts(parsed: argparse.Namespace) -> Parts:
    from fastmf.tuning.held_out import divide

    # The smaller first: what is wrong with it is known before the longer work.
    validation = None if parsed.validation is None else read_ratings(parsed.validation, parsed)
    ratings = read_ratings(parsed.ratings, parsed)
    note(f"read {ratings.n_ratings:,} ratings of {ratings.n_users:,} users on {ratings.n_items:,} items", parsed)
    if validation is not None:
        require_same_ids(ratings, validation, parsed)
        whole = read_whole(parsed) if parsed.refit else None
        _require_no_repeats(ratings, validation, whole, parsed)
        note(f"validating on {validation.n_ratings:,} ratings of {parsed.validation}", parsed)
        return Parts(ratings, validation, whole)
    if not is_asked_for(parsed):
        return Parts(ratings)
    by = parsed.validation_by or "random"
    share = None if by == "last" else (parsed.validation_fraction or DEFAULT_SHARE)
    train, held_out = divide(ratings, by, share, parsed.seed)
    note(f"held out {held_out.n_ratings:,} ratings for validation, {_RULES[by]}", parsed)
    return Parts(train, held_out, ratings if parsed.refit else None)


def duplicates_of_whole(parsed: argparse.Namespace) -> str:
    """Return the rule for pairs that are in the ratings and in those of --validation: a later one counts by default."""
    return "last" if parsed.duplicates == "error" else str(parsed.duplicates)


def read_whole(parsed: argparse.Namespace) -> "Interactions":
    """Read all ratings together with those to validate on, with one rule for pairs that are repeated."""
    together = argparse.Namespace(**{**vars(parsed), "duplicates": duplicates_of_whole(parsed)})
    return read_ratings([*parsed.ratings, parsed.validation], together)


def require_same_ids(ratings: "Interactions", validation: "Interactions", parsed: argparse.Namespace) -> None:
    """Check that the ids of both files are of the same types, in the words of the command."""
    from fastmf.tuning.held_out import require_same_id_types

    columns = parsed.user_column, parsed.item_column
    require_same_id_types(ratings, validation, columns, ("RATINGS", f"--validation {parsed.validation}"))


def _require_no_repeats(
    ratings: "Interactions", validation: "Interactions", whole: "Interactions | None", parsed: argparse.Namespace
) -> None:
    """Check that no pair is in both files, unless --duplicates says what to do with it."""
    n_repeats = 0 if whole is None else ratings.n_ratings + validation.n_ratings - whole.n_ratings
    if n_repeats and parsed.duplicates == "error":
        raise DataError(
            f"{n_repeats:,} of {validation.n_ratings:,} ratings of --validation {parsed.validation} repeat a (user, "
            "item) pair of RATINGS, and --refit trains on both; take them out of one, or choose --duplicates first, "
            "last, mean or sum"
        )


def described(parts: Parts, parsed: argparse.Namespace) -> dict[str, Any]:
    """Return what the ratings to validate on are, for programs."""
    if parts.validation is None:
        return {}
    source = {"by": parsed.validation_by or "random"} if parsed.validation is None else {"file": parsed.validation}
    return {"validation": {**source, "n_ratings": parts.validation.n_ratings}}
