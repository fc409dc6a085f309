"""Methods that are called as long as their object lives."""

import weakref
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def weakly(method: Callable[P, None]) -> Callable[P, None]:
    """Return a function that calls a method and does not keep its object alive; later it does nothing."""
    reference = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if (target := reference()) is not None:
            target(*args, **kwargs)

    return call
