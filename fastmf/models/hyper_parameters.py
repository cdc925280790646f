"""Hyper-parameters as scikit-learn has them: fields of a dataclass, read and changed by name."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from fastmf.errors import ParameterError


@dataclass(kw_only=True, eq=False)
class HyperParameters:
    """Base of a dataclass that checks its fields when it is made."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, as scikit-learn has it; ``deep`` is ignored."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}

    def set_params(self, **params: Any) -> Self:
        """Change parameters and check them; takes effect at the next `fit`.

        Raises
        ------
        ParameterError
            If a name or a value is wrong; nothing is changed then.
        """
        before = self.get_params()
        unknown = sorted(set(params) - set(before))
        if unknown:
            raise ParameterError(f"{type(self).__name__} has no parameter {unknown[0]!r}; it has {', '.join(before)}")
        type(self)(**{**before, **params})
        for name, value in params.items():
            setattr(self, name, value)
        return self
