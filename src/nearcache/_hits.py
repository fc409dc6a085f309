"""The near hit of a decorated function: one frame, no lock, no key to build, one look at the clock.

A function whose key is made of at most two of its arguments remembers the near slot that they led to. Its hit is a look
into that dictionary, and the checks of any near hit: the slot's own deadline, and that of the whole tier, which is
lowered while a block runs with `bypass` or `disabled`. Only ints and strs are remembered, and only those of the type
that came first, because `1 == True == 1.0`. Everything else goes the long way round, by the key.

The closures here are alike on purpose: a loop over arguments, or one more call, would cost more than all they do. They
take on the parameters and the name of the function they stand for, so that Python itself binds keywords and defaults.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final

from nearcache._core.missing import MISS
from nearcache._io.blocking import drive
from nearcache.near.slot import MANY, Slot
from nearcache.near.store import Store
from nearcache.near.tally import AFTER, Tally

Seek = Callable[..., Any]
"""Returns the near value of a call, found by its key, or MISS."""

Load = Callable[..., Any]
"""Makes the work that brings the outcome of a call."""

PLAIN: Final = (int, str)
"""Types whose equal values have equal texts in a key."""


class Memo:
    """The near slots of one function by its argument, or by the pair of two; `kind` and `other` are their types.

    `tally` counts the hits of the function's entity.
    """

    __slots__ = ("kind", "other", "slots", "tally")

    def __init__(self, tally: Tally) -> None:
        self.slots: dict[Any, Slot] = {}
        self.tally: Tally = tally
        self.kind: type | None = None
        self.other: type | None = None

    def admits(self, first: object, second: object = 0) -> bool:
        """Whether arguments of these types are remembered; the first that can be decide."""
        if self.kind is None and type(first) in PLAIN and type(second) in PLAIN:
            self.kind, self.other = type(first), type(second)
        return type(first) is self.kind and type(second) is self.other


def by_key(seek: Seek, load: Load) -> Callable[..., Any]:
    """Return what serves calls with any arguments, by their key."""

    def call(*args: Any, **kwargs: Any) -> Any:
        value = seek(*args, **kwargs)
        return value if value is not MISS else drive(load(*args, **kwargs)).get()

    return call


def by_key_awaited(seek: Seek, load: Load) -> Callable[..., Any]:
    """Return the coroutine function that serves calls with any arguments, by their key."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        value = seek(*args, **kwargs)
        return value if value is not MISS else (await load(*args, **kwargs)).get()

    return call


def by_one(near: Store, memo: Memo, seek: Seek, load: Load) -> Callable[..., Any]:
    """Return what serves calls with one argument."""
    clock, slots, tally = near.clock, memo.slots, memo.tally

    def call(argument: Any) -> Any:
        if type(argument) is memo.kind:
            try:
                slot = slots[argument]
                now = clock()
                if now < slot.deadline and now < near.until:
                    tally.ticks = AFTER[tally.ticks]
                    if slot.freq < MANY:
                        slot.freq += 1
                    if slot.copy is None:
                        return slot.value
                    return slot.copy(slot.value)
            except LookupError:
                pass  # not remembered, or time to tell the listeners: `seek` sees to both
        value = seek(argument)
        return value if value is not MISS else drive(load(argument)).get()

    return call


def by_one_awaited(near: Store, memo: Memo, seek: Seek, load: Load) -> Callable[..., Any]:
    """Return the coroutine function that serves calls with one argument."""
    clock, slots, tally = near.clock, memo.slots, memo.tally

    async def call(argument: Any) -> Any:
        if type(argument) is memo.kind:
            try:
                slot = slots[argument]
                now = clock()
                if now < slot.deadline and now < near.until:
                    tally.ticks = AFTER[tally.ticks]
                    if slot.freq < MANY:
                        slot.freq += 1
                    if slot.copy is None:
                        return slot.value
                    return slot.copy(slot.value)
            except LookupError:
                pass  # not remembered, or time to tell the listeners: `seek` sees to both
        value = seek(argument)
        return value if value is not MISS else (await load(argument)).get()

    return call


def by_second(near: Store, memo: Memo, seek: Seek, load: Load) -> Callable[..., Any]:
    """Return what serves calls with two arguments of which only the second is in the key: methods, mostly."""
    clock, slots, tally = near.clock, memo.slots, memo.tally

    def call(ignored: Any, argument: Any) -> Any:
        if type(argument) is memo.kind:
            try:
                slot = slots[argument]
                now = clock()
                if now < slot.deadline and now < near.until:
                    tally.ticks = AFTER[tally.ticks]
                    if slot.freq < MANY:
                        slot.freq += 1
                    if slot.copy is None:
                        return slot.value
                    return slot.copy(slot.value)
            except LookupError:
                pass  # not remembered, or time to tell the listeners: `seek` sees to both
        value = seek(ignored, argument)
        return value if value is not MISS else drive(load(ignored, argument)).get()

    return call


def by_two(near: Store, memo: Memo, seek: Seek, load: Load) -> Callable[..., Any]:
    """Return what serves calls with two arguments."""
    clock, slots, tally = near.clock, memo.slots, memo.tally

    def call(first: Any, second: Any) -> Any:
        if type(first) is memo.kind and type(second) is memo.other:
            try:
                slot = slots[first, second]
                now = clock()
                if now < slot.deadline and now < near.until:
                    tally.ticks = AFTER[tally.ticks]
                    if slot.freq < MANY:
                        slot.freq += 1
                    if slot.copy is None:
                        return slot.value
                    return slot.copy(slot.value)
            except LookupError:
                pass  # not remembered, or time to tell the listeners: `seek` sees to both
        value = seek(first, second)
        return value if value is not MISS else drive(load(first, second)).get()

    return call


Shape = tuple[int, tuple[int, ...]]
"""How many parameters a function has, and which of them make the key."""

Specialist = Callable[[Store, Memo, Seek, Load], Callable[..., Any]]

SPECIALISED: Final[dict[Shape, Specialist]] = {(1, (0,)): by_one, (2, (1,)): by_second, (2, (0, 1)): by_two}
AWAITED: Final[dict[Shape, Specialist]] = {(1, (0,)): by_one_awaited}


def take_on(call: Any, function: Callable[..., Any], signature: inspect.Signature) -> None:
    """Give a closure of fixed arity the names, the defaults and the name of the function that it stands for."""
    parameters = signature.parameters.values()
    names = tuple(each.name for each in parameters)
    call.__code__ = call.__code__.replace(
        co_varnames=names + call.__code__.co_varnames[len(names) :],
        co_posonlyargcount=sum(each.kind is inspect.Parameter.POSITIONAL_ONLY for each in parameters),
        co_name=function.__name__,
        co_qualname=function.__qualname__,
    )
    call.__defaults__ = tuple(each.default for each in parameters if each.default is not inspect.Parameter.empty)
