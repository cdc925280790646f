"""Convert delimited text to Parquet.

example:
  fastmf convert ml-1m/ratings.dat ratings.parquet

MovieLens files (u.data, ratings.dat, ratings.csv) are recognised by name. In other text the first line names the
columns, unless --columns is given. --user-column, --item-column, --rating-column and --timestamp-column select the
columns that become user_id, item_id, rating and timestamp. All other columns are kept.
"""

import argparse

from fastmf.cli.options import add_output_options, print_result
from fastmf.errors import ParameterError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", metavar="SOURCE", help="text file, may be compressed (.gz, .bz2, .xz)")
    parser.add_argument("output", metavar="OUT.parquet", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument("--delimiter", metavar="TEXT", help="what separates the columns (default: by the file's name)")
    parser.add_argument(
        "--quote",
        metavar="CHARACTER",
        help='what stands around values that hold the delimiter, or none (default: ", and none beside tabs and ::)',
    )
    parser.add_argument("--encoding", default="utf-8", metavar="NAME", help="of the text (default: %(default)s)")
    parser.add_argument("--columns", nargs="+", metavar="NAME", help="column names of a file without a header line")
    parser.add_argument(
        "--types",
        nargs="+",
        type=_name_and_type,
        default=[],
        metavar="NAME=TYPE",
        help="types of columns of the text: text, int, float or time (default: ids are int if all are integers without "
        "leading zeros, else text)",
    )
    for name in ("user", "item", "rating", "timestamp"):
        parser.add_argument(f"--{name}-column", metavar="NAME", help=f"column that holds the {name}s")
    add_output_options(parser)


def _name_and_type(text: str) -> tuple[str, str]:
    """Parse NAME=TYPE."""
    name, equals, kind = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=TYPE, for example item_id=text")
    return name, kind


def run(parsed: argparse.Namespace) -> int:
    """Convert the text and print a summary of the output."""
    from fastmf.reading.text import Format, convert

    renamed: dict[str, str] = {}
    for role, name in (("user", "user_id"), ("item", "item_id"), ("rating", "rating"), ("timestamp", "timestamp")):
        column = getattr(parsed, f"{role}_column")
        if column in renamed:
            first = renamed[column].removesuffix("_id")
            raise ParameterError(f"--{first}-column and --{role}-column are both {column!r}; expected two columns")
        if column is not None:
            renamed[column] = name
    columns, n_rows = convert(
        parsed.source,
        parsed.output,
        Format(parsed.delimiter, parsed.columns, "" if parsed.quote == "none" else parsed.quote, parsed.encoding),
        renamed=renamed,
        types=dict(parsed.types),
        overwrite=parsed.overwrite,
    )
    print_result({"output": parsed.output, "n_rows": n_rows, "columns": ", ".join(columns)}, parsed.json)
    return 0
