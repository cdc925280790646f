"""Compare the files of a model with their checksums.

example:
  fastmf verify model

Every file is read in full. `fastmf.load` alone checks shapes, ids, indices and finite factors, but not every byte.
"""

import argparse

from fastmf.cli.options import add_output_options, print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", metavar="MODEL", help="model directory")
    add_output_options(parser)


def run(parsed: argparse.Namespace) -> int:
    """Read the model, and print what was compared."""
    import fastmf
    from fastmf.keeping.model_directory import read_manifest

    fastmf.load(parsed.model, verify=True)
    files = read_manifest(parsed.model).files
    n_bytes = sum(file.n_bytes for file in files.values())
    print_result({"model": parsed.model, "files": len(files), "bytes": n_bytes, "damaged": 0}, parsed.json)
    return 0
