"""Make a small data set, train, evaluate, and write recommendations.

example:
  fastmf demo

It generates its own data, and shows each step as Python code to copy.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from fastmf.cli.options import add_output_options, note, print_result
from fastmf.common.files import local_path, naming
from fastmf.errors import OutputExistsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--output", default="recs.parquet", metavar="FILE", help="where to write (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--keep", metavar="DIR", help="keep the ratings and the model in this directory")
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Generate ratings, train, evaluate and recommend."""
    from fastmf.keeping.recommendations import require_replaceable

    require_replaceable(parsed.output, overwrite=parsed.overwrite, partitioned=False)
    if parsed.keep is not None:
        print_result(_whole_job(_empty_folder(parsed.keep), parsed), parsed.json)
    else:
        with tempfile.TemporaryDirectory() as folder:
            print_result(_whole_job(Path(folder), parsed), parsed.json)
    return 0


def _whole_job(folder: Path, parsed: argparse.Namespace) -> dict[str, Any]:
    import fastmf

    note("generated ratings of 2,000 users on 500 films", parsed)
    source, model_folder = folder / "ratings.parquet", folder / "model"
    fastmf.testing.film_club().to_parquet(source)
    _step(f'ratings = fastmf.read_parquet("{source.name}")', parsed)
    ratings = fastmf.read_parquet(source)
    _step("train, test = fastmf.split.per_user(ratings, test_fraction=0.2)", parsed)
    train, test = fastmf.split.per_user(ratings, test_fraction=0.2)
    _step("model = fastmf.ImplicitALS(n_factors=32, unobserved_weight=0.3).fit(train)", parsed)
    model = fastmf.ImplicitALS(n_factors=32, unobserved_weight=0.3, verbose=not parsed.quiet).fit(train)
    _step("fastmf.evaluate(model, test, k=10)", parsed)
    figures = fastmf.evaluate(model, test, k=10)
    _step(f'model.save("{model_folder.name}")', parsed)
    model.save(model_folder)
    overwriting = ", overwrite=True" if parsed.overwrite else ""
    _step(f'model.recommend(k=10).to_parquet("{parsed.output}"{overwriting})', parsed)
    recommendations = model.recommend(k=10)
    recommendations.to_parquet(parsed.output, overwrite=parsed.overwrite)
    table = recommendations.to_arrow()
    if not parsed.quiet:
        _show_first_user(table, parsed)
    most_popular = fastmf.metrics.ndcg_at_k(_most_popular(train), test.by_user[:2], k=10)
    return {
        "output": parsed.output,
        "n_rows": len(table),
        "ndcg@10": figures["ndcg@10"],
        "recall@10": figures["recall@10"],
        "ndcg@10 of the most popular films": most_popular,
    }


def _most_popular(train: Any) -> Any:
    """Recommend the most popular films that a user has not seen: the baseline that a recommender must beat."""
    import numpy as np

    counts = np.bincount(train.items, minlength=train.n_items)
    scores = np.tile(counts.astype(np.float64), (train.n_users, 1))
    scores[train.users, train.items] = -1
    return np.argsort(-scores, axis=1, kind="stable")[:, :10]


def _step(python: str, parsed: argparse.Namespace) -> None:
    note(f">>> {python}", parsed)


def _show_first_user(table: Any, parsed: argparse.Namespace) -> None:
    first = table.slice(0, 3).to_pylist()
    films = ", ".join(f"{row['item_id']} ({row['score']:.2f})" for row in first)
    note(f"{first[0]['user_id']} should see: {films}, ...", parsed)


def _empty_folder(name: str) -> Path:
    folder = local_path(name)
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise OutputExistsError(f"{name} is not empty; choose another directory with --keep")
    return folder
