"""``card.md``: what a model directory holds, in words. It is made of the manifest, and nothing reads it back."""

import numbers
import re
from typing import Any

from fastmf.answering.fitted import TrainingCounts

# Numbers of a manifest that say nothing to people.
_NOT_SHOWN = ("epoch", "seconds", "partial", "refit", "interrupted")
_MEANINGS = {
    "ImplicitALS": "a preference: near 1 for what the user would choose, near 0 for the rest; it is no probability",
    "BPR": "a number that orders the items of one user; those of two users cannot be compared",
    "Popularity": "the share of users who have chosen the item",
}


def make_card(content: dict[str, Any], counts: TrainingCounts) -> str:
    """Describe a model.

    Parameters
    ----------
    content : dict
        Of the manifest.
    counts : TrainingCounts
        How many training ratings users and items have.

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        f"# {content['model']} model",
        _summary(content),
        "## Training data\n\n" + _data(content, counts),
        "## Parameters\n\n" + _parameters(content),
        "## Metrics\n\n" + _metrics(content),
        "## Use\n\n" + _use(),
        "## Limits\n\n" + _limits(content, counts),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(content: dict[str, Any]) -> str:
    n_factors = content["n_factors"]
    factors = f"{n_factors} factors each, stored as {content['factor_dtype']}" if n_factors else "biases, no factors"
    return (
        f"{content['n_users']:,} users and {content['n_items']:,} items, {factors}. Saved {content['created']} by "
        f"fastmf {content['fastmf_version']} in format {content['format_version']}. `manifest.json` has these facts "
        "for programs; this page is for people, and may be edited."
    )


def _data(content: dict[str, Any], counts: TrainingCounts) -> str:
    data, n_users, n_items = content["data"], content["n_users"], content["n_items"]
    lines = []
    if files := data.get("files"):
        lines.append(f"Files: {', '.join(f'`{_plain(name)}`' for name in files)}")
    if data.get("source"):
        lines.append(f"Source: {_plain(data['source'])}")
    lines += [_features(side, content, counts) for side in content["features"]]
    if not counts.are_known:
        return _list([*lines, "The training ratings are not known to this model"])
    n_ratings = data["n_ratings"]
    density = n_ratings / max(1, n_users * n_items)
    lines.append(f"{n_ratings:,} ratings; {density:.3%} of all pairs of a user and an item are rated")
    lines.append(f"Mean rating {_number(data.get('mean'))}, standard deviation {_number(data.get('deviation'))}")
    if times := data.get("times"):
        lines.append(f"Ratings from {times[0]} to {times[1]}")
    lines.append(f"Fingerprint of the ratings: {data.get('fingerprint')}")
    return _list(lines)


def _features(side: str, content: dict[str, Any], counts: TrainingCounts) -> str:
    """Say how many features the users or items have, and how many users or items have them."""
    described, is_rated = counts.described_items, counts.of_items > 0
    if side == "user":
        described, is_rated = counts.described_users, counts.is_rated_user
    source = content["data"].get(f"{side}_features")
    n_features = f"{content['features'][side]['n_features']:,} features of {side}s"
    text = n_features + (f", from `{_plain(source)}`" if source else "")
    if described is None:
        return text
    n_unrated = int((described & ~is_rated).sum())
    return f"{text}; {int(described.sum()):,} {side}s have some, {n_unrated:,} of them without a training rating"


def _parameters(content: dict[str, Any]) -> str:
    chosen = content["trained_with"].get("chosen") or {}
    lines = []
    for name, value in content["parameters"].items():
        told = f" (the fit chose {_number(chosen[name])} from the data)" if name in chosen else ""
        lines.append(f"`{name}`: {_plain(value)}{told}")
    others = [name for name in chosen if name not in content["parameters"]]
    return _list(lines + [f"`{name}`: {_number(chosen[name])}, chosen from the data" for name in others])


def _metrics(content: dict[str, Any]) -> str:
    history, data = content["history"], content["data"]
    lines = []
    if history:
        last = {name: value for name, value in history[-1].items() if name not in _NOT_SHOWN}
        lines.append(f"{_when(history)}: {_in_words(last) or 'nothing was measured'}")
        if history[-1].get("interrupted") is True:
            lines.append(_interruption(content))
        patience = content["trained_with"].get("patience")
        if patience:
            lines.append(f"Training had the patience of {patience} epochs: the factors are those of the best epoch")
        if not any(name.startswith("validation_") for name in history[-1]):
            lines.append("Nothing was measured on ratings that were held out")
    baseline = {name: value for name, value in data.items() if name.startswith("baseline_")}
    if baseline:
        lines.append(f"The baseline, a model without factors: {_in_words(baseline)}")
    return _list(lines or ["None were kept"])


def _when(history: list[dict[str, Any]]) -> str:
    """Say what the last record of a history was measured after."""
    if history[-1].get("partial") is True:
        return "After a partial fit, which solved the rows with new ratings"
    if history[-1].get("refit") is True:
        n_epochs = sum(record.get("refit") is True for record in history)
        return f"After the last of {n_epochs} epochs on all ratings, those of validation among them"
    return f"After the last of {len(history)} epochs"


def _interruption(content: dict[str, Any]) -> str:
    """Say after how many of its epochs a training was interrupted."""
    history, n_epochs = content["history"], content["parameters"].get("n_epochs", 1)
    last = history[-1]
    n_done = sum(record.get("refit") is True for record in history) if last.get("refit") is True else len(history)
    return f"Training was interrupted after {n_done:,} of {_number_of(n_epochs)} epochs"


def _number_of(n_epochs: Any) -> str:
    return f"{n_epochs:,}" if isinstance(n_epochs, int) else _plain(n_epochs)


def _use() -> str:
    return (
        '```python\nimport fastmf\n\nmodel = fastmf.load("this directory")  # verify=True compares every byte first\n'
        "model.recommend(model.user_ids[:1], k=min(10, len(model.item_ids)))\n```\n\n"
        "`fastmf verify DIRECTORY` says whether the files are whole; this page is not among those that are compared."
    )


def _limits(content: dict[str, Any], counts: TrainingCounts) -> str:
    lines = [f"A score is {_meaning(content)}."]
    if counts.are_known:
        n_cold_users = int(counts.is_cold_user.sum())
        n_cold_items = int(counts.is_cold_item.sum())
        if n_cold_users or n_cold_items:
            lines.append(
                f"{n_cold_users:,} users and {n_cold_items:,} items have no training rating: these users get no "
                "recommendations, and these items are not recommended, unless the call asks for it."
            )
        lines.append("Users and items that were not in the training data are unknown to the model.")
        lines.append(
            "Recommendations leave out what a user has rated in the training data, unless the call asks for it."
        )
    else:
        lines.append(
            'What users have seen is not known: `exclude="seen"` leaves nothing out, and the model cannot be trained '
            "further."
        )
    if content["factor_dtype"] == "float16":
        lines.append("Factors have three significant digits (float16): scores differ a little from those of the fit.")
    return _list(lines)


def _meaning(content: dict[str, Any]) -> str:
    if content["model"] in _MEANINGS:
        return _MEANINGS[content["model"]]
    low, span = content["link"]["low"], content["link"]["span"]
    if content["trained_with"].get("loss", content["parameters"].get("loss")) == "logistic":
        return "the probability that the user chooses the item rather than one drawn at random"
    if span:
        return f"a predicted rating between {low:g} and {low + span:g}"
    return "a predicted rating; it may leave the range of the ratings"


def _in_words(metrics: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in metrics.items())


def _number(value: Any) -> str:
    if value is None or value != value:
        return "undefined"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return _plain(value)
    return f"{float(value):.4g}"


def _plain(value: object) -> str:
    """Write a value in one line without the signs that Markdown and HTML understand."""
    return re.sub(r"[`<>|\s]+", " ", str(value))[:500]


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
