"""The codec ids in the envelope: a number never gets a second meaning, and a reader refuses those it does not know."""

from typing import Final

VALUE: Final = 1
"""Self-describing msgpack."""
COUNTER: Final = 2
"""An int within 64 bits as decimal text, so that a server-side script can add to it."""
TYPED: Final = 3
"""msgpack of a declared type, as msgspec writes it."""
TYPED_WIDE: Final = 4
"""A declared type taken apart into self-describing msgpack, for field values that msgspec's own form would change."""
PYDANTIC: Final = 5
"""JSON of a declared type that contains pydantic models."""
PYDANTIC_WIDE: Final = 6
"""A declared type that contains pydantic models, taken apart into self-describing msgpack."""
PICKLE: Final = 7
"""A signed pickle."""
JSON: Final = 0
"""JSON without an envelope: never found in a header."""

IN_ENVELOPES: Final = frozenset({VALUE, COUNTER, TYPED, TYPED_WIDE, PYDANTIC, PYDANTIC_WIDE, PICKLE})
