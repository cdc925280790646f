"""Import a model that the library implicit has saved.

example:
  fastmf import als.npz model --item-ids items.parquet

The file has no training ratings: recommendations of the model leave nothing out, and it cannot be trained further.
"""

import argparse

from fastmf.cli.options import add_output_options, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("file", metavar="FILE.npz", help="what model.save of implicit wrote: ALS, BPR or logistic")
    parser.add_argument("output", metavar="MODEL", help="model directory to write")
    for side in ("user", "item"):
        parser.add_argument(
            f"--{side}-ids",
            metavar="FILE",
            help=f"Parquet file with the id of each row of {side} factors, in the column {side}_id or its only one "
            "(default: 0, 1, 2, ...)",
        )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Import the model, save it, and print what it is."""
    import fastmf
    from fastmf.keeping.model_directory import require_replaceable

    require_replaceable(parsed.output, parsed.overwrite)
    model = fastmf.import_implicit(parsed.file, parsed.user_ids, parsed.item_ids)
    model.save(parsed.output, overwrite=parsed.overwrite)
    fitted = model.fitted
    n_factors = fitted.factors.user_factors.shape[1]
    sizes = {"n_users": fitted.n_users, "n_items": fitted.n_items, "n_factors": n_factors}
    print_result({"output": parsed.output, "model": type(model).__name__, **sizes}, parsed.json)
    return 0
