"""Hyper-parameters as scikit-learn has them: fields of a dataclass, read and changed by name."""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from fastmf.common.parameters import AUTO
from fastmf.errors import ParameterError
from fastmf.models.parameter_docs import ParameterDoc, merged_parameters, read_parameters, with_parameters

Chosen = dict[str, float | str]
"""Parameters by name, as a fit has chosen them: numbers, and how strengths are scaled."""


@dataclass(kw_only=True, eq=False)
class HyperParameters:
    """Base of a dataclass that checks its fields when it is made.

    The docstring of a subclass describes the parameters that it adds, or of which it has more to say. What its bases
    say of the others is added to it.
    """

    parameter_docs: ClassVar[dict[str, ParameterDoc]] = {}
    """What each parameter means, in the order of the fields."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own_doc = cls.__dict__.get("__doc__")
        inherited = [vars(base).get("parameter_docs", {}) for base in reversed(cls.__mro__[1:])]
        merged = merged_parameters([*inherited, read_parameters(own_doc)])
        cls.parameter_docs = {name: merged[name] for name in _fields(cls) if name in merged}
        if own_doc and cls.parameter_docs:
            defaults = {name: getattr(cls, name, None) for name in cls.parameter_docs}
            cls.__doc__ = with_parameters(own_doc, cls.parameter_docs, defaults)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, as scikit-learn has it; ``deep`` is ignored."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn's searches ask of an estimator; nobody else calls it."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags())

    def auto_parameters(self) -> list[str]:
        """Return the names of the parameters that are ``"auto"``: `fit` chooses their numbers from the data."""
        return [name for name, value in self.get_params().items() if isinstance(value, str) and value == AUTO]

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


def _fields(cls: type) -> list[str]:
    """Return the names of the fields of a class that is about to become a dataclass, in their order."""
    bases = [base for base in reversed(cls.__mro__) if base is cls or "__dataclass_fields__" in vars(base)]
    return list(dict.fromkeys(name for base in bases for name in inspect.get_annotations(base)))
