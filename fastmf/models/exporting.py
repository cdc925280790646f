"""Models to vectors in files that other programs read."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from fastmf._version import __version__
from fastmf.answering.fitted import Fitted
from fastmf.common.files import naming, new_directory, output_path, require_absent
from fastmf.common.json_text import to_json
from fastmf.common.parameters import require_choice, require_truth
from fastmf.errors import OutputExistsError, ParameterError, named
from fastmf.keeping.vector_files import DESCRIPTION, FORMATS, read_description, require_installed
from fastmf.keeping.vectors import Form, item_vectors, make_form, user_vectors
from fastmf.models.base import Model
from fastmf.models.loading import load
from fastmf.reading.parquet import PathLike


class Exported(NamedTuple):
    """What `export` has written.

    Attributes
    ----------
    files : tuple of str
        Their names.
    n_users, n_items : int
        Vectors.
    n_dimensions : int
        Length of each.
    n_cold_users, n_cold_items : int
        Users and items with neither training ratings nor features, which were left out.
    """

    files: tuple[str, ...]
    n_users: int
    n_items: int
    n_dimensions: int
    n_cold_users: int
    n_cold_items: int


def export(
    model: Model | PathLike,
    path: PathLike,
    *,
    format: str = "parquet",
    normalize: bool = False,
    fold_biases: bool | None = None,
    cold: str = "skip",
    overwrite: bool = False,
) -> Exported:
    """Write the vectors of users and items to a directory, for vector indexes and other programs.

    The inner product of a user's and an item's vector orders the items of the user as `Model.recommend` does. The score
    is that product, the user's bias and the global mean together, and, in a model with a rating range or the logistic
    loss, low + span·sigmoid of the sum; ``export.json`` has these numbers.

    Parameters
    ----------
    model : Model or path-like
        A fitted model, or the directory of one.
    path : path-like
        The directory to write; it appears whole or not at all.
    format : {"parquet", "npz", "safetensors", "faiss", "hnswlib"}
        "parquet": ``users.parquet`` and ``items.parquet`` with the columns ``id``, ``vector`` and ``bias``. "npz":
        ``users.npz`` and ``items.npz`` with the arrays ``ids``, ``vectors`` and ``biases``. "safetensors":
        ``vectors.safetensors``, and ids in Parquet. "faiss" and "hnswlib": an index of the items by inner product
        (IndexFlatIP, which is exact, or HNSW, which is not), whose numbers are rows of ``item_ids.parquet``, and
        ``users.parquet``. The last three need ``pip install "fastmf[export]"``.
    normalize : bool
        Whether vectors are scaled to length 1, so that products are cosines.
    fold_biases : bool, optional
        Whether the bias of an item becomes the last number of its vector, and 1 that of each user's. None: unless
        ``normalize``. Vectors of a model without item biases get no such number.
    cold : {"skip", "include"}
        Whether users and items with neither training ratings nor features are written; their vectors say nothing.
    overwrite : bool
        Whether an earlier export may be replaced.

    Returns
    -------
    Exported

    Raises
    ------
    ParameterError
        If a parameter makes no sense, or there is nothing to write.
    BackendError
        If what the format needs is not installed.
    OutputExistsError
        If ``path`` exists and ``overwrite`` is false, or it is something else than an export.
    DataError
        If the format cannot store the ids.

    Examples
    --------
    >>> import fastmf
    >>> import numpy as np
    >>> ratings = fastmf.testing.low_rank(n_users=50, n_items=20, density=0.5, seed=0)
    >>> model = fastmf.ALS(n_factors=4).fit(ratings)
    >>> fastmf.export(model, "vectors", format="npz").n_dimensions
    5
    >>> users, items = np.load("vectors/users.npz"), np.load("vectors/items.npz")
    >>> best = np.argmax(items["vectors"] @ users["vectors"][0])
    >>> bool(items["ids"][best] == model.item_ids[int(model.recommend(k=1, exclude=None).items[0, 0])].as_py())
    True
    """
    require_choice("format", format, tuple(FORMATS))
    require_choice("cold", cold, ("skip", "include"))
    require_truth("normalize", normalize)
    if fold_biases is not None:
        require_truth("fold_biases", fold_biases)
    if normalize and fold_biases:
        raise ParameterError(
            f"{named('normalize=True')} and {named('fold_biases=True')} exclude each other: a cosine knows no biases; "
            "give one of them"
        )
    if not isinstance(model, (Model, str, os.PathLike)):
        raise ParameterError(
            f"{named('model')} is a {type(model).__name__}; expected a fitted model, or the path of a model directory"
        )
    require_installed(format)
    _require_replaceable(path, overwrite)
    loaded = load(model) if isinstance(model, (str, os.PathLike)) else model
    fitted = loaded.fitted
    form = make_form(fitted, normalize, not normalize if fold_biases is None else fold_biases, cold)
    return _write(type(loaded).__name__, fitted, form, path, format, overwrite)


def _write(model: str, fitted: Fitted, form: Form, path: PathLike, format: str, overwrite: bool) -> Exported:
    users, items = user_vectors(fitted, form), item_vectors(fitted, form)
    n_dimensions = items.vectors.shape[1]
    if n_dimensions == 0:
        raise ParameterError(
            f"this {model} has no factors: without {named('fold_biases=True')} there is nothing to write; fold biases "
            "in, or export a model of factors"
        )
    if not len(users.ids) or not len(items.ids):
        raise ParameterError(f"no user or no item has training ratings; give {named('cold')}='include' to export all")
    files = FORMATS[format].files
    exported = Exported(
        (*files, DESCRIPTION),
        len(users.ids),
        len(items.ids),
        n_dimensions,
        fitted.n_users - len(users.ids),
        fitted.n_items - len(items.ids),
    )
    n_bytes = sum(part.nbytes for part in (*users, *items))
    with new_directory(path, overwrite, n_bytes) as folder:
        details = FORMATS[format].write(folder, users, items)
        description = _describe(model, fitted, form, exported) | {"index": details}
        text = to_json({"format": format, **description}, indent=2) + "\n"
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")
        _require_replaceable(path, overwrite)  # somebody may have put files there meanwhile
    return exported


def _describe(model: str, fitted: Fitted, form: Form, exported: Exported) -> dict[str, Any]:
    factors, link = fitted.factors, fitted.link
    score = "dot(user vector, item vector)"
    if form.is_normalized:
        score += ", the cosine of their factors; it is not the score of the model"
    else:
        score += "" if form.has_biases else " + item bias" * bool(factors.item_biases.any())
        score += " + user bias" * bool(factors.user_biases.any())
        score += f" + {factors.global_mean:.9g}" * bool(factors.global_mean)
        score = f"{link.low:g} + {link.span:g} * sigmoid({score})" if link.span else score
    return {
        "model": model,
        "fastmf_version": __version__,
        **exported._asdict(),
        "has_biases_folded_in": form.has_biases,
        "is_normalized": form.is_normalized,
        "score": score,
        "global_mean": float(factors.global_mean),
        "link": {"low": float(link.low), "span": float(link.span)},
        "fingerprint": fitted.data.get("fingerprint"),
    }


def _require_replaceable(path: PathLike, overwrite: bool) -> None:
    """Raise an error if vectors may not be put at ``path``: only an export is overwritten, as that deletes it."""
    require_absent(path, overwrite)
    folder = output_path(path)
    with naming(path):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
    description = read_description(folder)
    if description is None:
        raise OutputExistsError(
            f"{path} exists and holds no exported vectors, which alone are overwritten; choose another output, or "
            "delete it first"
        )
    own = {DESCRIPTION, *FORMATS[description["format"]].files}
    if foreign := sorted(_names(folder) - own):
        raise OutputExistsError(
            f"{path} holds files that are not of the export, and overwriting it would delete them: "
            f"{', '.join(foreign[:5])}; move them, or choose another output"
        )


def _names(folder: Path) -> set[str]:
    return {entry.name + "/" * entry.is_dir() for entry in folder.iterdir()}
