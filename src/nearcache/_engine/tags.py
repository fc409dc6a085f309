"""Tags of loaded values: texts with placeholders for the arguments of the load, and for what it returned."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from nearcache._core.template import template
from nearcache._engine.core import Core
from nearcache._engine.write import Tagger
from nearcache.errors import ConfigError, InvalidKeyError

RESULT: Final = "result"
"""The placeholder for the loaded value."""


def no_tags(_value: Any) -> tuple[str, ...]:
    """Return the tags of values that have none."""
    return ()


class Tags:
    """The tags of one function's results, such as `("team:{result.team_id}", "users")`.

    A None result has no tags that would need it.
    """

    def __init__(self, core: Core, texts: Iterable[str], parameters: Collection[str] = ()) -> None:
        if isinstance(texts, str):
            raise InvalidKeyError("tags are a list or another iterable of str, not a str")
        self._check = core.namespace.check_tag
        self._templates = tuple(map(template, texts))
        core.require_marks("tags", bool(self._templates))
        for each in self._templates:
            if unknown := [name for name in each.fields if name != RESULT and name not in parameters]:
                known = ", ".join(f"{{{name}}}" for name in (RESULT, *parameters))
                raise ConfigError(f"the tag {each.text!r} has the placeholder {{{unknown[0]}}}; it may have {known}")

    def tagger(self, arguments: Callable[[], Mapping[str, object]] = dict) -> Tagger:
        """Return what makes the tags of one load, whose arguments are asked for when they are needed."""
        return (lambda value: self._of(value, arguments())) if self._templates else no_tags

    def _of(self, value: Any, arguments: Mapping[str, object]) -> tuple[str, ...]:
        names: list[str] = []
        for each in self._templates:
            if value is not None or RESULT not in each.fields:
                roots = [value if name == RESULT else arguments[name] for name in each.fields]
                names.append(self._check(each.render(*roots)))
        return tuple(dict.fromkeys(names))
