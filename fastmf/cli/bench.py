"""Run the benchmark suite on this machine.

example:
  fastmf bench quality --data DIRECTORY
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command: those of the suites, which say more."""
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="see `fastmf bench quality --help`")


def run(parsed: argparse.Namespace) -> int:
    """Hand over to the benchmark program."""
    from fastmf_bench.__main__ import main

    return main(parsed.arguments)
