"""Export the vectors of a model to Parquet, NumPy, safetensors, faiss or hnswlib.

example:
  fastmf export model vectors --format parquet

The inner product of a user's and an item's vector orders items as the model does. The last three formats need
`pip install "fastmf[export]"`.
"""

import argparse

from fastmf.cli.options import add_output_options, note, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("output", nargs="?", metavar="OUT", help="directory to write")
    place.add_argument("--output", dest="output_option", metavar="OUT", help="the same, as other commands have it")
    parser.add_argument(
        "--format",
        choices=("parquet", "npz", "safetensors", "faiss", "hnswlib"),
        default="parquet",
        help="of the files (default: %(default)s)",
    )
    parser.add_argument("--normalize", action="store_true", help="scale vectors to length 1: products are cosines")
    biases = parser.add_mutually_exclusive_group()
    biases.add_argument(
        "--fold-biases",
        action="store_true",
        default=None,
        help="make the bias of an item the last number of its vector (default: unless --normalize)",
    )
    biases.add_argument(
        "--no-fold-biases", dest="fold_biases", action="store_false", help="leave biases out of the vectors"
    )
    parser.add_argument(
        "--cold",
        choices=("skip", "include"),
        default="skip",
        help="what to do with users and items without training ratings (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Export, and print what was written."""
    import fastmf

    output = parsed.output_option if parsed.output is None else parsed.output
    exported = fastmf.export(
        parsed.model,
        output,
        format=parsed.format,
        normalize=parsed.normalize,
        fold_biases=parsed.fold_biases,
        cold=parsed.cold,
        overwrite=parsed.overwrite,
    )
    if exported.n_cold_users or exported.n_cold_items:
        note(
            f"left out {exported.n_cold_users:,} users and {exported.n_cold_items:,} items without training ratings; "
            "--cold include writes them, too",
            parsed,
        )
    result = {"output": output, **exported._asdict(), "files": ", ".join(exported.files)}
    print_result(result | ({"files": exported.files} if parsed.json else {}), parsed.json)
    return 0
