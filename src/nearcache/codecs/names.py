"""How types are named in stored bytes and in messages."""

from typing import Any


def name_of(annotation: Any) -> str:
    """Return the qualified name of a class (`app.models.User`), or an annotation as it is written."""
    if isinstance(annotation, type) and not hasattr(annotation, "__origin__"):
        name = f"{annotation.__module__}.{annotation.__qualname__}"
        return name.removeprefix("builtins.")
    return str(annotation).replace("typing.", "")
