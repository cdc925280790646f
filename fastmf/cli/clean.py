"""Remove what interrupted and killed runs left beside an output.

example:
  fastmf clean recs.parquet

Of an output: unfinished versions, and finished parts of recommendations. Of a directory: those of all outputs in it.
Files of processes that are alive stay. The next run that writes the same output removes them, too.
"""

import argparse

from fastmf.cli.options import add_output_options, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="output of an interrupted run, or a directory of outputs")
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Remove left-overs, and print which."""
    from fastmf.common.files import local_path
    from fastmf.common.leftovers import remove_all

    found = remove_all(local_path(parsed.path))
    removed, in_use = ([str(path) for path in paths] for paths in (found.removed, found.in_use))
    if parsed.json:
        print_result({"removed": removed, "bytes": found.n_bytes, "in_use": in_use}, True)
        return 0
    for path in removed:
        print(f"removed {path}")
    for path in in_use:
        print(f"kept {path}: a process may be working on it")
    print_result({"removed": len(removed), "bytes": found.n_bytes, "in use": len(in_use)}, False)
    return 0
