"""Key templates: "users:{user_id}:profile", whose placeholders no argument can leave."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from hashlib import blake2b
from typing import Final

from nearcache._core.arguments import SMALL, UNPRINTABLE, canonical, percent_encoded
from nearcache.errors import ConfigError, InvalidKeyError

MAX_PARTS: Final = 7
"""Parts of a key as users write it; the namespace is one more."""

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_FIELD: Final = re.compile(r"(?P<root>[^\W\d]\w*)(?P<path>(?:\.[^\W\d_]\w*)*)(?P<hashed>:hash)?")
_NOT_IN_KEYS: Final = re.compile(rf"[{{}}{UNPRINTABLE}]")

# What may stand between two placeholders of one part. It is percent-encoded in their values, which is unambiguous only
# for characters that a value's text never holds percent-encoded for another reason.
_SEPARATORS: Final = frozenset(string.punctuation) - frozenset("%:{}!'")


@dataclass(frozen=True, slots=True)
class _Hole:
    """One placeholder, and the literal text after it."""

    index: int
    parameter: str
    path: tuple[str, ...]
    hashed: bool
    separators: Mapping[int, str]
    tail: str

    @property
    def whole(self) -> bool:
        """Whether the value stands in the key as `canonical` writes it."""
        return not (self.path or self.hashed or self.separators)

    def text(self, root: object) -> str:
        value = reduce(self._attribute, self.path, root) if self.path else root
        text = canonical(value, self.parameter)
        if self.hashed:
            text = digest(text)
        return text.translate(self.separators) if self.separators else text

    def _attribute(self, value: object, name: str) -> object:
        try:
            return getattr(value, name)
        except AttributeError as error:
            kind = type(value).__name__
            raise InvalidKeyError(f"argument {self.parameter!r}: a {kind} has no attribute {name!r}") from error


def digest(text: str) -> str:
    """Return 128 bits of a canonical text's BLAKE2b digest, in a form no other text has."""
    return f"!hash({blake2b(text.encode(), digest_size=16).hexdigest()})"


class Template:
    """A key with placeholders: `{name}`, `{name.attribute}`, or `{name:hash}` for long text.

    Values are escaped, so none can add a part or forge the key of others. A template that breaks the rules of keys
    raises `ConfigError` when it is made.
    """

    __slots__ = ("_head", "_holes", "direct", "entity", "fields", "text")

    fields: tuple[str, ...]
    """The names of the parameters, in order of first use."""

    direct: bool
    """Whether the key is made of the parameters themselves, not of attributes of theirs."""

    entity: str | None
    """The first part of every key, None where it depends on the arguments."""

    def __init__(self, text: str) -> None:
        self.text = _text(text)
        pieces = _PLACEHOLDER.split(text)
        _check_literals(text, pieces[::2])
        matches = [_field(text, inner) for inner in pieces[1::2]]
        self.fields = tuple(dict.fromkeys(match["root"] for match in matches))
        self.direct = not any(match["path"] for match in matches)
        self._head = pieces[0]
        entity, colon, _ = self._head.partition(":")
        self.entity = entity if colon or len(pieces) == 1 else None
        encoded = _separators(text, pieces[::2])
        holes = map(self._hole, matches, encoded, pieces[2::2])
        self._holes = tuple((hole, hole.whole) for hole in holes)

    def _hole(self, match: re.Match[str], separators: Mapping[int, str], tail: str) -> _Hole:
        path = tuple(match["path"].split(".")[1:])
        return _Hole(self.fields.index(match["root"]), match["root"], path, bool(match["hashed"]), separators, tail)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def format(self, arguments: Mapping[str, object]) -> str:
        """Return the key for these arguments, which are those of the template, no more and no fewer."""
        if missing := [name for name in self.fields if name not in arguments]:
            raise InvalidKeyError(f"the key template {self.text!r} needs an argument {missing[0]!r}")
        if unknown := [name for name in arguments if name not in self.fields]:
            raise InvalidKeyError(f"the key template {self.text!r} has no placeholder for the argument {unknown[0]!r}")
        return self.render(*[arguments[name] for name in self.fields])

    def render(self, *roots: object) -> str:
        """Return the key for the values of `fields`, in their order."""
        key = self._head
        for hole, whole in self._holes:
            value = roots[hole.index]
            # ids: nearly every argument
            small = whole and type(value) is int and -SMALL < value < SMALL
            key += (str(value) if small else hole.text(value)) + hole.tail
        return key


@lru_cache(maxsize=512)
def template(text: str) -> Template:
    """Return the template of a text, made once."""
    return Template(text)


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"a key template is a str, not a {type(text).__name__}")
    return text


def _check_literals(text: str, literals: list[str]) -> None:
    skeleton = "x".join(literals)
    wrong = _NOT_IN_KEYS.search(skeleton)
    if wrong is not None:
        raise ConfigError(f"the key template {text!r} has {wrong.group()!r} outside a placeholder")
    parts = skeleton.split(":")
    if not all(parts):
        raise ConfigError(f"the key template {text!r} has an empty part")
    if len(parts) > MAX_PARTS:
        raise ConfigError(f"the key template {text!r} has {len(parts)} parts; at most {MAX_PARTS} are allowed")


def _field(text: str, inner: str) -> re.Match[str]:
    match = _FIELD.fullmatch(inner)
    if match is None:
        raise ConfigError(
            f"the key template {text!r} has the placeholder {{{inner}}}; write {{name}}, {{name.attribute}} "
            "(of a public attribute), or one of them with :hash"
        )
    return match


def _separators(text: str, literals: list[str]) -> list[dict[int, str]]:
    """For each placeholder, how to encode what separates it from others in the same part."""
    between = [literal if ":" not in literal else None for literal in literals[1:-1]]
    for literal in between:
        if literal is not None and literal[:1] not in _SEPARATORS:
            raise ConfigError(
                f"the key template {text!r} needs ':' (or one of - , ; / . _ and the like) between two placeholders: "
                "otherwise different arguments could share a key"
            )
    return [_encoding(_same_part(between, index)) for index in range(len(literals) - 1)]


def _same_part(between: list[str | None], index: int) -> list[str]:
    """The literals between the placeholders of the part in which placeholder `index` stands."""
    first = last = index
    while first > 0 and between[first - 1] is not None:
        first -= 1
    while last < len(between) and between[last] is not None:
        last += 1
    return [literal for literal in between[first:last] if literal is not None]


def _encoding(literals: list[str]) -> dict[int, str]:
    return {ord(literal[0]): percent_encoded(literal[0]) for literal in literals}
