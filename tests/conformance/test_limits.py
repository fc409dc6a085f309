"""Limits mean the same in both flavours and on every engine; a kind that an engine cannot keep is refused at once."""

from typing import Any

import pytest

from nearcache import LimitExceededError, UnsupportedError
from tests.faces import Awaited


@pytest.mark.parametrize("kind", ["sliding", "fixed", "gcra"])
async def test_a_limiter_counts_or_is_refused_when_it_is_made(face: Awaited, kind: str) -> None:
    if kind not in face.cache._engine.backend.limits.kinds:
        with pytest.raises(UnsupportedError, match=f"of kind='fixed', not {kind!r}; engines that can: .*hazelcast"):
            face.limiter("a", "3/30d", kind=kind)
        return
    limiter: Any = face.limiter("a:b", "3/30d", "5/29d", kind=kind)
    hit, peek, require = map(face.awaited, (limiter.hit, limiter.peek, limiter.require))
    wait, refund, reset = map(face.awaited, (limiter.wait, limiter.refund, limiter.reset))
    verdict = await hit("me", 2)
    assert (bool(verdict), verdict.remaining) == (True, 1)
    assert await wait("me")
    with pytest.raises(LimitExceededError, match="'3/30d' of 'a:b'"):
        await require("me")
    assert await refund(verdict)
    assert (await peek("me")).remaining == 2
    await reset("me")
    assert (await peek("me")).remaining == 3
