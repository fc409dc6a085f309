"""What came of a piece of work: a value, or the error it ended with.

Errors of user code travel through the engine as values. An exception thrown into a coroutine would be changed on
its way (`StopIteration` becomes `RuntimeError`); a value is not.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Form = tuple[Any, Callable[[Any], Any] | None]
"""A state, and what makes a value of one's own from it; None where the state is the value, and nobody can change it."""


class Outcome(Generic[T]):
    """A value or an error; `get` returns the one or raises the other."""

    __slots__ = ("_private", "_traceback", "_value", "error", "form", "stale")

    def __init__(self, value: T | None = None, error: BaseException | None = None) -> None:
        self._value = value
        self.error: BaseException | None = error
        self._traceback = None if error is None else error.__traceback__
        self.form: Form | None = None
        """What the values of others are made from, where that is known."""
        self._private = False
        self.stale: bool = False
        """Whether it is a value that is served although it is no longer fresh."""

    @property
    def abandoned(self) -> bool:
        """Whether others who waited for it must look for themselves: the work was cancelled or interrupted, which says
        nothing about its result, or its value is for one reader only.
        """
        return self._private or (self.error is not None and not isinstance(self.error, Exception))

    def unshared(self) -> "Outcome[T]":
        """Keep the value for the one who did the work; return self."""
        self._private = True
        return self

    def shared_as(self, state: object, copier: Callable[[Any], Any] | None) -> "Outcome[T]":
        """Let `copy` hand out independent values made from `state`; return self."""
        self.form = state, copier
        return self

    def get(self) -> T:
        """Return the value, or raise the error, whose traceback does not tell of others who got it too."""
        if self.error is not None:
            raise self.error.with_traceback(self._traceback)
        return self._value  # type: ignore[return-value]

    def copied(self) -> "Outcome[T]":
        """Return an outcome whose value is one's own (the same value where it cannot be changed)."""
        state, copier = self.form or (None, None)
        if self.error is not None or copier is None:
            return self
        return Outcome(copier(state)).shared_as(state, copier)
