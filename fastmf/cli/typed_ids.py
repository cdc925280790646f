"""Ids that were typed as text."""

from typing import Any

from fastmf.errors import UnknownIdError


def id_of(option: str, text: str, vocabulary: Any) -> int | str:
    """Turn what was typed into an id of a model.

    Parameters
    ----------
    option : str
        Names it in errors.
    text : str
    vocabulary : Arrow array
        The ids that the model knows, integers or strings.

    Raises
    ------
    UnknownIdError
        If it is none of them.
    """
    from fastmf.reading import ids

    are_integers = str(vocabulary.type) == "int64"
    try:
        typed = int(text) if are_integers else text
        is_known = ids.look_up(vocabulary, [typed], option)[0] >= 0
    except (ValueError, OverflowError):
        is_known = False
    if not is_known:
        kind = "an integer" if are_integers else "one"
        raise UnknownIdError(f"{option} {text} is unknown to the model; expected {kind} of its training data")
    return typed
