"""Progress of long work: a bar on a terminal, plain lines elsewhere, always on standard error."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Never

from tqdm import tqdm

from fastmf.common.work_log import LOG

_SECONDS_BETWEEN_LINES = 5.0
_WITHOUT_BAR, _SHORTEST_BAR = "{l_bar}{r_bar}", 1
# A line without bar and rate leaves room for a long note in 80 columns.
_WITHOUT_RATE = "{desc}: {n_fmt}/{total_fmt}{unit}s [{elapsed}{postfix}]"


class Progress:
    """Counts steps of long work, tells them to `logging`, and shows them if asked to; a context manager.

    Parameters
    ----------
    label : str
        What is being done.
    total : int
        How many steps there are.
    unit : str
        What a step is called.
    shown : bool
        False makes it silent.
    with_rate : bool
        Whether to draw the bar and tell how many steps are done in a second: for steps that take about as long.
    n_done : int
        How many steps were done before.

    Examples
    --------
    >>> with Progress("training", total=2, unit="epoch", shown=False) as progress:
    ...     for _ in range(2):
    ...         progress.advance(1, "train_rmse 0.91")
    """

    def __init__(self, label: str, total: int, unit: str, shown: bool, with_rate: bool = True, n_done: int = 0) -> None:
        self._label, self._total, self._unit, self._shown = label, total, unit, shown
        self._done = n_done
        self._last_line = -_SECONDS_BETWEEN_LINES
        self._bar: tqdm[Never] | None = None
        if shown and sys.stderr.isatty():
            layout = None if with_rate else _WITHOUT_RATE
            self._bar = tqdm(
                total=total,
                desc=label,
                unit=f" {unit}",
                file=sys.stderr,
                dynamic_ncols=True,
                bar_format=layout,
                initial=n_done,
            )

    def advance(self, steps: int, note: str = "", shorter: Sequence[str] = ()) -> None:
        """Count ``steps`` more, with a note on how it goes.

        Parameters
        ----------
        steps : int
        note : str
        shorter : sequence of str
            Notes for terminals that are too narrow for it; the first one that fits is shown, else the last one.
        """
        self._done += steps
        LOG.debug("%s: %d/%d %ss %s", self._label, self._done, self._total, self._unit, note)
        if self._bar is not None:
            self._bar.set_postfix_str(self._fitting(self._bar, [note, *shorter], steps), refresh=False)
            self._bar.update(steps)
        elif self._shown and self._line_is_due():
            self._last_line = time.monotonic()
            print(f"{self._label}: {self._done}/{self._total} {self._unit}s {note}".rstrip(), file=sys.stderr)

    def _fitting(self, bar: "tqdm[Never]", notes: list[str], steps: int) -> str:
        """Return the first note that fits beside a bar of no length, after so many more steps; else the last one."""
        values = bar.format_dict
        width, n_done, layout = values["ncols"], values["n"] + steps, values["bar_format"] or _WITHOUT_BAR
        if not width:  # it is not known
            return notes[0]
        for note in notes:
            line = tqdm.format_meter(**{**values, "ncols": None, "n": n_done, "postfix": note, "bar_format": layout})
            if len(line) + _SHORTEST_BAR <= width:
                return note
        return notes[-1]

    def _line_is_due(self) -> bool:
        few = self._total <= 100
        return few or self._done >= self._total or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def show_above_bars(text: str) -> None:
    """Print a line to standard error, above the bars that are drawn there at the moment."""
    if sys.stderr is not None:
        tqdm.write(text, file=sys.stderr)


def show_line(text: str, shown: bool) -> None:
    """Tell a line on the work to `logging`, and print it to standard error if asked to."""
    LOG.info(text)
    if shown:
        print(text, file=sys.stderr)
