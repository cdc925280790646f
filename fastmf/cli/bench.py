"""Run the benchmark suite on this machine.

example:
  fastmf bench sgd --quick
"""

import argparse
from collections.abc import Sequence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command; the benchmark program parses them itself."""
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="see `fastmf bench --help`")


def run(parsed: argparse.Namespace) -> int:
    """Hand over to the benchmark program."""
    return run_with(parsed.arguments)


def run_with(arguments: Sequence[str]) -> int:
    """Hand over to the benchmark program, whose options argparse must not take for its own."""
    from fastmf_bench.__main__ import main

    return main(arguments)
