"""Ratings to validate on: the options that name them or hold them out, and how the parts are read."""

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from fastmf.cli.options import fraction, note, read_ratings
from fastmf.errors import ParameterError

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
    """Read the ratings and divide them as the options say."""
    import fastmf

    # The smaller first: what is wrong with it is known before the longer work.
    validation = None if parsed.validation is None else read_ratings(parsed.validation, parsed)
    ratings = read_ratings(parsed.ratings, parsed)
    note(f"read {ratings.n_ratings:,} ratings of {ratings.n_users:,} users on {ratings.n_items:,} items", parsed)
    if validation is not None:
        # Read, not joined: a pair that is in both is treated as --duplicates says.
        whole = read_ratings([*parsed.ratings, parsed.validation], parsed) if parsed.refit else None
        note(f"validating on {validation.n_ratings:,} ratings of {parsed.validation}", parsed)
        return Parts(ratings, validation, whole)
    if not is_asked_for(parsed):
        return Parts(ratings)
    by = parsed.validation_by or "random"
    train, held_out = fastmf.split.hold_out(ratings, by, parsed.validation_fraction, seed=parsed.seed)
    note(f"held out {held_out.n_ratings:,} ratings for validation, {_RULES[by]}", parsed)
    return Parts(train, held_out, ratings if parsed.refit else None)


def described(parts: Parts, parsed: argparse.Namespace) -> dict[str, Any]:
    """Return what the ratings to validate on are, for programs."""
    if parts.validation is None:
        return {}
    source = {"by": parsed.validation_by or "random"} if parsed.validation is None else {"file": parsed.validation}
    return {"validation": {**source, "n_ratings": parts.validation.n_ratings}}
