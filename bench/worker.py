"""One contender of one row, in a process of its own: `python -m bench.worker ROW CONTENDER [URL]`.

It says hello with one line of JSON (versions, and what its answers are like), or with `{"error": …}`. For each number
it reads it makes so many calls and answers with one line: seconds of its processor, seconds of the clock, bytes by
which the process grew. At the end of its input it says goodbye with one more line of JSON: what it counted.

In asyncio the whole life is one coroutine, and the loop stands still between two blocks: reading blocks it on purpose.
"""

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any, TextIO, cast

from bench import coherence, crowd, handoff
from bench.contenders import near, remote, remote_async
from bench.found import found, versions
from bench.rows import Contender, Row, find
from bench.subject import Subject, peer
from bench.work import Runs, cases

PAGE = os.sysconf("SC_PAGE_SIZE")


class Session:
    """The talk with the parent, and what it adds up to."""

    def __init__(self, out: TextIO, subject: Subject) -> None:
        self.out = out
        self.subject = subject
        self.calls = 0
        self.before = counters(subject)

    def say(self, **words: Any) -> None:
        """Say one line of JSON."""
        print(json.dumps(words), file=self.out, flush=True)

    def took(self, n: int, cpu: float, wall: float, grown: int) -> None:
        """Answer for one block."""
        self.calls += n
        print(cpu, wall, grown, file=self.out, flush=True)

    def goodbye(self) -> None:
        """Say what was counted."""
        now = counters(self.subject)
        counted = {name: now[name] - self.before[name] for name in now}
        expected = self.calls * self.subject.per_call
        self.say(expected=expected, counted=counted, loads=Runs.count, expected_loads=self.subject.loads)


def main() -> None:
    """Live as long as there is input."""
    out = claim_output()
    row = find(sys.argv[1])
    contender = row.contender(sys.argv[2])
    url = (sys.argv[3:] or [""])[0]
    try:
        if row.kind == "crowd":
            crowd.live(out, row, contender, url)
        elif row.kind == "handoff":
            handoff.live(out, contender, url)
        elif row.kind in ("hits", "visible"):
            coherence.live(out, contender, url)
        elif row.kind == "awaits":
            live_in_asyncio(out, row, contender, url)
        else:
            live(out, row, contender, url)
    except Exception as error:  # noqa: BLE001 -- whatever a peer raises, its row says so
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=out, flush=True)


def counters(subject: Subject) -> dict[str, float]:
    """Return what a subject says of itself now."""
    return dict(subject.counters()) if subject.counters else {}


def claim_output() -> TextIO:
    """Return the output for the parent, and lead everything else that is printed to the errors."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def live(out: TextIO, row: Row, contender: Contender, url: str) -> None:
    """Check a blocking subject, then time it."""
    subject = build(row, contender, url)
    answer = subject.once()
    check(subject, answer)
    copies = copied(answer, subject.once())
    session = Session(out, subject)
    session.say(versions=versions(contender), copies=copies)
    for n in map(int, sys.stdin):
        if subject.prepare:
            subject.prepare()
        grown, cpu, wall = resident(), time.process_time(), time.perf_counter()
        subject.loop(n)
        session.took(n, time.process_time() - cpu, time.perf_counter() - wall, resident() - grown)
    session.goodbye()


def live_in_asyncio(out: TextIO, row: Row, contender: Contender, url: str) -> None:
    """Do the same in an event loop."""
    factory = peer("uvloop").new_event_loop if row.uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_live_in_asyncio(out, row, contender, url))


async def _live_in_asyncio(out: TextIO, row: Row, contender: Contender, url: str) -> None:
    async with AsyncExitStack() as stack:
        subject = await build_async(row, contender, url, stack)
        answer = await subject.once()
        check(subject, answer)
        copies = copied(answer, await subject.once())
        session = Session(out, subject)
        session.say(versions=versions(contender) | _loop_version(row), copies=copies)
        while line := sys.stdin.readline():
            n = int(line)
            cpu, wall = time.process_time(), time.perf_counter()
            await subject.loop(n)
            session.took(n, time.process_time() - cpu, time.perf_counter() - wall, 0)
        session.goodbye()


def build(row: Row, contender: Contender, url: str) -> Subject:
    """Return the subject of a contender in a blocking row."""
    room, builder = found(contender)
    if row.kind == "memory":
        return near.build_filling(builder)
    if room == "near":
        return near.build(builder, cases()[row.case])
    if row.case == "threads":
        return remote.threaded(builder)(url)
    subject: Subject = builder(url) if row.url else builder()
    return subject


async def build_async(row: Row, contender: Contender, url: str, stack: AsyncExitStack) -> Subject:
    """Return the subject of a contender in a row of asyncio."""
    room, builder = found(contender)
    if room == "near":
        return near.build_async(builder, cases()[row.case])
    makers = {"one": remote_async.one, "many": remote_async.many, "tasks": remote_async.tasks}
    return await makers[row.case](builder, url, stack)


def check(subject: Subject, answer: Any) -> None:
    """Raise unless the answer is right, its type included."""
    if answer != subject.expected or type(answer) is not type(subject.expected):
        raise ValueError(f"the answer is {answer!r:.200}, not {subject.expected!r:.200}")


def copied(answer: Any, again: Any) -> str | None:
    """Say how far two answers are apart: "deep", "shallow" or "shared"; None if nobody can change them."""
    if not isinstance(answer, dict):
        return None
    if answer is again:
        return "shared"
    values = cast("dict[str, object]", answer)
    inner = [key for key, value in values.items() if isinstance(value, dict | list)]
    return "shallow" if any(values[key] is again[key] for key in inner) else "deep"


def resident() -> int:
    """Return the bytes of memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def _loop_version(row: Row) -> dict[str, str]:
    return {"uvloop": version("uvloop")} if row.uvloop else {}


if __name__ == "__main__":
    main()
