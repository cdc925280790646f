"""``--config``: options of a command from a TOML file; those that are given on the command line override them.

A key is the name of an option, with ``-`` or ``_``, or ``ratings``, ``model`` or ``test`` for an argument that has no
option. Keys stand at the top of the file, or in a table of one command, such as ``[train]``.
"""

import argparse
import difflib
import json
import tomllib
from collections.abc import Sequence
from typing import Any, NamedTuple, Never

from fastmf.cli.options import NOT_OF_THE_RUN, name_of, resolved_options
from fastmf.errors import ParameterError

COMMANDS = ("train", "tune", "recommend", "evaluate")
"""The commands that take a configuration."""
_OPTION = "--config"
# A shorter abbreviation is not one of this option alone.
_SHORTEST = "--con"


class Configuration(NamedTuple):
    """What a file says of a command.

    Attributes
    ----------
    path : str
    values : dict
        The value of each argument, by its destination.
    keys : dict of str to str
        How the file names these arguments.
    shared : frozenset of str
        Those that stand at the top, for any command.
    """

    path: str
    values: dict[str, Any]
    keys: dict[str, str]
    shared: frozenset[str] = frozenset()


class _WrongCall(Exception):  # noqa: N818 - it is no error where another reading of the call is right
    """The command line does not fit the parser."""


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--print-config``."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        _OPTION, metavar="RUN.toml", help="file of options, as names and values; options given here override it"
    )
    group.add_argument(
        "--print-config", action="store_true", help="print the options of this call as such a file, and do nothing else"
    )


def parse(
    parser: argparse.ArgumentParser, command: str, given: Sequence[str], namespace: argparse.Namespace
) -> argparse.Namespace:
    """Parse a command line, with the options of the file that it names.

    Returns
    -------
    Namespace
        With ``configuration``, a `Configuration` of what comes from the file, or None.

    Raises
    ------
    ParameterError
        If the file cannot be read, or says something that the command does not understand.
    """
    namespace.configuration = None
    path = _path_in(given) if command in COMMANDS else None
    if path is None:
        return parser.parse_args(given, namespace)
    subparser = _subparser(parser, command)
    configured = _read(path, command, subparser)
    say = subparser.error
    try:
        parsed = _parse_around(configured, parser, subparser, given, namespace)
    except _WrongCall as error:
        say(str(error))
    taken = {name: value for name, value in configured.values.items() if not hasattr(parsed, name)}
    for name, value in taken.items():
        setattr(parsed, name, value)
    parsed.configuration = configured._replace(values=taken, keys={name: configured.keys[name] for name in taken})
    return parsed


def is_shared(parsed: argparse.Namespace, destination: str) -> bool:
    """Whether an argument is there because a configuration has it at the top, where it is for any command.

    This call may have no use for it.

    Examples
    --------
    >>> parsed = argparse.Namespace(configuration=Configuration("run.toml", {"seed": 1}, {}, frozenset(["seed"])))
    >>> is_shared(parsed, "seed"), is_shared(parsed, "output")
    (True, False)
    """
    configured: Configuration | None = parsed.configuration
    return configured is not None and destination in configured.values and destination in configured.shared


def to_toml(parsed: argparse.Namespace) -> str:
    """Return the arguments of a call as a configuration.

    Examples
    --------
    >>> from fastmf.cli import make_parser
    >>> words = ["recommend", "model", "--output", "recs.parquet", "--strict"]
    >>> print(to_toml(make_parser("recommend").parse_args(words)))
    [recommend]
    model = "model"
    output = "recs.parquet"
    k = 10
    strict = true
    ...
    device = "cpu"
    """
    options = resolved_options(parsed)
    return "\n".join([f"[{parsed.command}]", *(f"{name} = {_as_toml(value)}" for name, value in options.items())])


def _path_in(given: Sequence[str]) -> str | None:
    """Return the last ``--config``, which argparse takes, too; None if there is none."""
    path = None
    for position, word in enumerate(given):
        if word == "--":
            break
        option, equals, value = word.partition("=")
        if _OPTION.startswith(option) and len(option) >= len(_SHORTEST):
            path = value if equals else next(iter(given[position + 1 : position + 2]), None)
    return path


def _subparser(parser: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    subparser: argparse.ArgumentParser = commands.choices[command]
    return subparser


def _parse_around(
    configured: Configuration,
    parser: argparse.ArgumentParser,
    subparser: argparse.ArgumentParser,
    given: Sequence[str],
    namespace: argparse.Namespace,
) -> argparse.Namespace:
    """Parse a command line that may leave out what is configured; it is absent from the result then.

    An argument without an option that the file has, too, may be given or not. The parser cannot tell before it has
    read the line: it reads the line again, with one more of them left out, from the last one on.
    """
    for action in subparser._actions:
        if action.dest in configured.values:
            action.default = argparse.SUPPRESS
            action.required = action.required and not action.option_strings
    positionals = [a for a in subparser._actions if not a.option_strings and a.dest in configured.values]
    errors: list[str] = []
    for parser_ in (parser, subparser):
        parser_.error = _fail  # type: ignore[method-assign]
    for n_left_out in range(len(positionals) + 1):
        for left_out in positionals[len(positionals) - n_left_out :]:
            left_out.nargs, left_out.required = ("*" if left_out.nargs in ("+", "*") else "?"), False
        try:
            return parser.parse_args(given, argparse.Namespace(**vars(namespace)))
        except _WrongCall as error:
            errors.append(str(error))
    raise _WrongCall(errors[-1] if errors[0].startswith("the following arguments are required") else errors[0])


def _fail(message: str) -> Never:
    raise _WrongCall(message)


def _read(path: str, command: str, parser: argparse.ArgumentParser) -> Configuration:
    content = _load(path)
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    for name in tables:
        if name not in COMMANDS:
            near = _nearest(name, {known: known for known in COMMANDS}) or "one of " + ", ".join(COMMANDS)
            raise ParameterError(f"[{name}] in {path} is no command that takes a configuration; expected {near}")
    configured = Configuration(path, {}, {})
    _add(configured, {key: value for key, value in content.items() if key not in tables}, command, parser)
    of_command = Configuration(path, {}, {})
    _add(of_command, tables.get(command, {}), command, parser)
    shared = frozenset(configured.values.keys() - of_command.values.keys())
    return Configuration(path, configured.values | of_command.values, configured.keys | of_command.keys, shared)


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParameterError(f"{path} is not TOML: {error}; expected lines such as epochs = 20") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(f"cannot read {path}: {reason}; expected a TOML file of options") from error


def _add(configured: Configuration, given: dict[str, Any], command: str, parser: argparse.ArgumentParser) -> None:
    """Add the keys of a table."""
    actions = {name_of(action): action for action in parser._actions if action.dest not in NOT_OF_THE_RUN}
    for key, value in given.items():
        action = actions.get(key.replace("_", "-"), actions.get(key))
        if action is None:
            meant = {other.dest.replace("_", "-"): name for name, other in actions.items()}
            near = _nearest(key.replace("_", "-"), meant | {name: name for name in actions})
            expected = f"{near}, or another that" if near else "one that"
            raise ParameterError(
                f"{key} in {configured.path} is no option of {command}; expected {expected} `fastmf {command} --help` "
                "lists"
            )
        if action.dest in configured.values:
            other = configured.keys[action.dest]
            raise ParameterError(f"{other} and {key} in {configured.path} exclude each other; give one of them")
        switched = _value(action, value, f"{key} in {configured.path}")
        if switched is not _OFF:
            configured.values[action.dest] = switched
            configured.keys[action.dest] = key


def _nearest(name: str, meant: dict[str, str]) -> str:
    """Return what a mistyped name may stand for, by the meaning of each known name; else an empty word."""
    found = difflib.get_close_matches(name, list(meant), n=1, cutoff=0.5)
    return meant[found[0]] if found else ""


_OFF = object()
"""The value of a switch that is false: the option is not given."""


def _value(action: argparse.Action, given: Any, where: str) -> Any:
    """Return the value of an argument as argparse would from words.

    Raises
    ------
    ParameterError
        If it is of the wrong type or not allowed.
    """
    if action.nargs == 0:
        if not isinstance(given, bool):
            raise ParameterError(f"{where} is {given!r}; expected true or false")
        return action.const if given else _OFF
    if action.nargs == "?" and given is True:
        return action.const
    n_values = action.nargs if isinstance(action.nargs, int) else None
    if action.nargs == "+" or n_values or isinstance(action, argparse._AppendAction):
        values = given if isinstance(given, list) else [given]
        if len(values) == 0 or (n_values and len(values) != n_values):
            raise ParameterError(f"{where} has {len(values)} values; expected {n_values or 'at least one'}")
        return [_single(action, value, where) for value in values]
    return _single(action, given, where)


def _single(action: argparse.Action, given: Any, where: str) -> Any:
    if isinstance(given, bool) or not isinstance(given, str if action.type is None else (str, int, float)):
        expected = "text" if action.type is None else "a number or text"
        raise ParameterError(f"{where} is {_shown(given)}; expected {expected}")
    value: Any = given
    try:
        value = given if action.type is None else action.type(str(given))  # type: ignore[operator]
    except argparse.ArgumentTypeError as error:
        raise ParameterError(f"{where}: {error}") from None
    except (TypeError, ValueError):
        raise ParameterError(f"{where} is {given!r}; expected a value of type {_type_name(action)}") from None
    if action.choices is not None and value not in action.choices:
        raise ParameterError(f"{where} is {given!r}; expected one of {', '.join(map(repr, action.choices))}")
    return value


def _shown(given: Any) -> str:
    return str(given).lower() if isinstance(given, bool) else repr(given)


def _type_name(action: argparse.Action) -> str:
    return str(getattr(action.type, "__name__", action.type))


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_as_toml, value))}]"
    if isinstance(value, str):  # JSON escapes what TOML escapes, but for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
