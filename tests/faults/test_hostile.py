"""Input that somebody chose to do harm: replies of an engine, records, keys, templates, settings.

Whatever comes, callers get an error of this library or a value, nothing is unpickled that was not signed, and on the
wire stands exactly the commands that were meant, with their arguments byte for byte.
"""

import asyncio
import math
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hiredis
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nearcache import BackendUnavailableError, Cache, CacheError, CodecError, InvalidKeyError
from nearcache._engine import load
from nearcache.backends.redis.leases import RedisLeases
from nearcache.backends.redis.listener import Listener
from nearcache.codecs.codec import Codec
from nearcache.codecs.ids import PICKLE
from nearcache.options import resolve
from tests.faults.calls import FLAVOURS, READS, WRITES, face
from tests.integration.redis.helpers import FakeServer, bulk, drive
from tests.promises.helpers import broken, noticed

Examples = settings(max_examples=150, suppress_health_check=list(HealthCheck))
Many = settings(max_examples=500, suppress_health_check=list(HealthCheck))
VERBS = {**READS, **WRITES}


# Records


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._trace),)


SECRET = "ours, and ours alone"
TRACE = Path("/tmp") / f"nearcache-unpickled-{os.getpid()}"


def sealed(codec: Codec, value: object) -> bytes:
    """Return a record that is fresh for very long."""
    ages: dict[str, float] = {"born": 1.0, "soft": 1e11, "hard": 1e11, "cost": 0.0}
    return codec.seal(codec.encode(value), fill_id=b"fill--id", epoch=1 << 60, tags=["t:1"], **ages)


def unsigned() -> bytes:
    """Return a record that claims to be a pickle, and is one, without a signature."""
    raw = bytearray(sealed(Codec(), "x"))
    raw[36] = PICKLE
    return bytes(raw[:-2]) + pickle.dumps(Bomb(TRACE))


RECORDS = [
    sealed(Codec(), "text"),
    sealed(Codec(), {"a": [1, None, 2.5], "b": b"bytes"}),
    sealed(Codec("pickle", secret="somebody else's secret"), {"a": 1}),
    unsigned(),
]
READERS = {"msgpack": Codec(), "pickle": Codec("pickle", secret=SECRET), "json": Codec("json")}


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw one of the seeds with some bytes changed, cut, repeated or inserted."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


@settings(max_examples=400)
@given(st.sampled_from(sorted(READERS)), mutated(RECORDS) | st.binary(max_size=200))
def test_any_record_is_a_value_or_undecodable(name: str, raw: bytes) -> None:
    with suppress(CacheError):
        READERS[name].decode(READERS[name].open(raw))
    assert not TRACE.exists(), "it was unpickled"


def test_a_pickle_that_is_read_without_its_signature_is_noticed() -> None:
    with pytest.MonkeyPatch.context() as patch, noticed("unpickled"):
        patch.setattr(Codec, "decode", lambda codec, record: pickle.loads(record.payload))
        try:
            READERS["pickle"].decode(READERS["pickle"].open(unsigned()))
            assert not TRACE.exists(), "it was unpickled"
        finally:
            TRACE.rmdir()


# Replies

REPLIES = [
    *map(bulk, RECORDS),
    b"$-1\r\n",
    b"_\r\n",
    b"+OK\r\n",
    b":1\r\n",
    b":-2\r\n",
    b"-ERR no\r\n",
    b"-NOSCRIPT no\r\n",
    b"-WRONGTYPE no\r\n",
    b"*1\r\n$4\r\nLEAD\r\n",
    b"*2\r\n$5\r\nVALUE\r\n" + bulk(RECORDS[0]),
    b"*3\r\n$4\r\nWAIT\r\n:10\r\n$1\r\n!\r\n",
    b"*2\r\n$1\r\n0\r\n*1\r\n$5\r\nt:a:1\r\n",
    b"*2\r\n" + bulk(RECORDS[0]) + b"$-1\r\n",
    b"*2\r\n$1\r\n1\r\n$1\r\n0\r\n",
    b"*1\r\n*2\r\n$6\r\n~clear\r\n,1\r\n",
    b"*2\r\n_\r\n,1.5\r\n",
    b"*3\r\n,inf\r\n,nan\r\n,1e300\r\n",
    b"%1\r\n*0\r\n+a\r\n",
    b"~1\r\n:1\r\n",
    b">2\r\n+message\r\n+x\r\n",
    b"(123456789012345678901234567890\r\n",
    b":9223372036854775807\r\n",
    b"*2147483647\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
]
RIDE = (b"TIME", b"ZREVRANGEBYSCORE", b"PEXPIRE")


class Liar(FakeServer):
    """Answers with what it was told, in turn, and then says nothing more on that connection.

    It may be honest where it is greeted, and to the questions that go along with other commands.
    """

    def __init__(self) -> None:
        super().__init__(lambda command: None)
        self.replies: list[bytes] = []
        self.greets = self.rides = True

    def _reply(self, connection: socket.socket, command: list[bytes]) -> bool:
        greeting = command[0] in (b"HELLO", b"CLIENT", b"SELECT") or command[:2] == [b"INFO", b"replication"]
        if (greeting and self.greets) or (command[0] in RIDE and self.rides):
            return super()._reply(connection, command)
        if self.replies:
            connection.sendall(self.replies.pop(0))
        else:
            connection.shutdown(socket.SHUT_WR)
        return True


@contextmanager
def served(server: FakeServer) -> Iterator[Any]:
    try:
        yield server
    finally:
        server.close()


def call(cache: Cache, flavour: str, verb: str) -> Any:
    """Call a verb; only the library's own errors are suppressed."""

    async def run() -> Any:
        with suppress(CacheError):
            return await VERBS[verb](face(cache, flavour))

    return asyncio.run(run()) if flavour == "async" else drive(run())


lies = st.sampled_from(REPLIES) | mutated(REPLIES) | st.binary(max_size=30)


def whatever_an_engine_answers(examples: settings) -> None:
    """Let a fake engine answer anything."""
    options: dict[str, Any] = {"near": None, "timeout": 0.05, "hard_timeout": 0.01, "observers": (), "namespace": "t"}
    with served(Liar()) as server, broken(RedisLeases, "life", 0.05):
        plain, pickling = Cache(server.url, **options), Cache(server.url, **options, codec="pickle", secret=SECRET)

        @examples
        @given(
            st.sampled_from([plain, pickling]),
            st.sampled_from(FLAVOURS),
            st.sampled_from(sorted(VERBS)),
            st.sampled_from([(True, True), (True, True), (True, False), (False, False)]),
            st.lists(lies, min_size=1, max_size=6),
        )
        def answers(cache: Cache, flavour: str, verb: str, honest: tuple[bool, bool], said: list[bytes]) -> None:
            server.replies, (server.greets, server.rides) = list(said), honest
            core = cache._parts.core
            core.debts.clear()  # of the lies before
            core.view.owed.clear()
            call(cache, flavour, verb)
            assert not TRACE.exists(), "it was unpickled"

        answers()
        plain.close()
        pickling.close()


def test_whatever_an_engine_sends_is_a_value_or_an_error_of_ours() -> None:
    whatever_an_engine_answers(settings(max_examples=15, suppress_health_check=list(HealthCheck)))


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_whatever_an_engine_sends_is_a_value_or_an_error_of_ours_for_long() -> None:
    whatever_an_engine_answers(settings(max_examples=60, suppress_health_check=list(HealthCheck)))


# The same behind the parser, where there is no time to lose

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=10)
    | st.sampled_from([*RECORDS, b"LEAD", b"VALUE", b"WAIT", b"OK", b"0", b"~clear", "text"])
    | st.sampled_from(["ERR no", "NOSCRIPT no", "WRONGTYPE no", "OOM no", "READONLY no"]).map(hiredis.ReplyError)
)
shapes = st.recursive(atoms, lambda more: st.lists(more, max_size=4) | st.dictionaries(st.binary(max_size=3), more))
HONEST: dict[str, Any] = {"TIME": [b"1", b"0"], "ZREVRANGEBYSCORE": [[b"~clear", 1.0]], "PEXPIRE": 1}


class LyingLink:
    """Answers each command with the next of some replies; honestly, if it may, to those that go along with others.

    At some time it is silent: who lists keys goes on as long as an engine says that there are more.
    """

    spreads = False

    def __init__(self, said: list[Any], honest: bool) -> None:
        self._said = said
        self._left = 200
        self._honest = HONEST if honest else {}

    def execute(self, *commands: Sequence[Any]) -> list[Any]:
        self._left -= 1
        if self._left < 0:
            raise BackendUnavailableError("it says nothing any more")
        return [self._answer(str(command[0])) for command in commands]

    def lacks(self) -> bool:
        """It is one engine."""
        return False

    def renew(self) -> None:
        """There is nothing to renew."""

    async def open(self) -> None:
        """It is open."""

    async def close(self) -> None:
        """It is never closed."""

    def _answer(self, name: str) -> Any:
        if name in self._honest:
            return self._honest[name]
        self._said.append(self._said.pop(0))
        return self._said[-1]


def any_shape(
    examples: settings,
    honest: Sequence[bool] = (True, True, False),
    run: Callable[[Callable[[], Any]], Any] = lambda test: test(),
) -> None:
    """Let an engine answer what can be written in its language, in any place; `run` runs the test."""
    options: dict[str, Any] = {"near": None, "hard_timeout": 0.001, "observers": (), "namespace": "t"}
    with broken(RedisLeases, "life", 0.001), broken(Listener, "start", lambda listener: None), impatient():

        @examples
        @given(
            st.sampled_from(FLAVOURS),
            st.sampled_from(sorted(VERBS)),
            st.sampled_from(honest),
            st.lists(shapes, min_size=1, max_size=4),
        )
        @example("sync", "delete", True, [b"OK"])
        @example("sync", "delete", True, [[], hiredis.ReplyError("ERR no")])
        @example("sync", "ttl", True, [[1]])
        @example("sync", "scan", True, [5])
        @example("sync", "scan", True, [[b"7", []]])
        @example("async", "incr", True, [None, b"many"])
        @example("sync", "invalidate_tags", True, [0])
        @example("async", "get_or_load", True, [None, [b"WAIT", None, b"x"]])
        @example("async", "get_or_load", False, [[], [[b"~clear", math.inf]]])
        def answers(flavour: str, verb: str, honest: bool, said: list[Any]) -> None:
            cache = Cache("redis://localhost", **options)
            for each in (cache, cache.aio):
                each._engine.backend._link = LyingLink(list(said), honest)  # type: ignore[attr-defined]
            call(cache, flavour, verb)

        run(answers)
    assert not TRACE.exists(), "it was unpickled"


def impatient() -> Any:
    """Let nobody wait long for a load elsewhere that a liar told of."""
    return broken(load, "WAIT_MARGIN", 0.01)


def test_an_answer_of_any_shape_is_a_value_or_an_error_of_ours() -> None:
    any_shape(Examples)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_an_answer_of_any_shape_is_a_value_or_an_error_of_ours_for_long() -> None:
    any_shape(Many)


# Keys, templates, settings

MEMORY = Cache("memory://", observers=())
texts = st.text(st.characters(), max_size=30) | st.text(":{}\r\n*$ a1~é\ud800", max_size=30)
anything = texts | st.none() | st.integers() | st.binary(max_size=5) | st.lists(texts, max_size=2)


@settings(max_examples=300)
@given(anything, anything)
def test_any_key_is_used_or_refused(key: Any, tag: Any) -> None:
    with suppress(CacheError):
        MEMORY.set(key, "x", tags=[tag])
        assert MEMORY.get(key) == "x"
    with suppress(CacheError):
        MEMORY.get_many([key, key])


@settings(max_examples=300)
@given(
    texts | st.sampled_from(["a:{a}", "{a}:{b}", "x:{a.b:hash}"]),
    st.dictionaries(st.sampled_from(["a", "b"]), anything),
)
def test_any_template_makes_keys_or_is_refused(text: str, arguments: dict[str, Any]) -> None:
    with suppress(CacheError):
        MEMORY.key(text, **arguments)


schemes = st.sampled_from(["redis", "rediss", "unix", "embedded", "memory", "redis+sentinel", "http", ""])
urls = texts | st.builds("{}://{}".format, schemes, texts | st.text("/@:?&=#%[]ab01.", max_size=30))
VARIABLES = ["CACHE_URL", "CACHE_TYPE", "CACHE_NAMESPACE", "CACHE_ENABLED", "CACHE_TTL_DEFAULT", "CACHE_TTL_MAX"]
POOL = ["CACHE_POOL_MIN_SIZE", "CACHE_POOL_MAX_SIZE", "CACHE_POOL_TIMEOUT", "CACHE_TTL_X", "CACHE_WHAT"]


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(VARIABLES + POOL), urls | st.text("0123456789.-+eshmnd", max_size=8)))
def test_any_environment_is_settings_or_an_error_that_says_so(environ: dict[str, str]) -> None:
    with suppress(CacheError):
        resolve(environ=environ)


@settings(max_examples=400)
@given(urls)
@example("redis+sentinel://[")
@example("redis+sentinel://user:pass{}word@host/group/0")
def test_any_url_is_one_or_refused(url: str) -> None:
    with suppress(CacheError):
        Cache(url, observers=())


# What stands on the wire

ANY = b"<any>"
INJECTED = b"\r\n*1\r\n$8\r\nFLUSHALL\r\n"
GREETED = [[b"HELLO", b"3"], [b"CLIENT", b"SETNAME", b"nearcache"], [b"INFO", b"replication"]]


class Scribe(FakeServer):
    """Writes down what it receives, byte by byte, and answers as little as it can."""

    def __init__(self) -> None:
        super().__init__(self._say)
        self.heard = bytearray()

    def _say(self, command: list[bytes]) -> bytes:
        return (
            b"*2\r\n$1\r\n0\r\n*0\r\n" if command[0] == b"SCAN" else b"$-1\r\n" if command[0] == b"GET" else b":1\r\n"
        )

    def _serve(self, connection: socket.socket) -> None:
        reader = hiredis.Reader()
        with suppress(OSError), connection:
            while data := connection.recv(65536):
                self.heard += data
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    self._reply(connection, command)


def parsed(data: bytes) -> list[list[bytes]]:
    """Read commands, which must fill all of the bytes: `*count`, and for each argument `$length` and itself."""
    commands: list[list[bytes]] = []
    while data:
        count, data = number(data, b"*")
        command: list[bytes] = []
        for _ in range(count):
            length, data = number(data, b"$")
            command.append(data[:length])
            assert data[length : length + 2] == b"\r\n", f"not at its end: {data[:80]!r}"
            data = data[length + 2 :]
        commands.append(command)
    return commands


def number(data: bytes, kind: bytes) -> tuple[int, bytes]:
    line, end, rest = data.partition(b"\r\n")
    assert end, "a line without an end"
    assert line[:1] == kind, f"expected {kind!r}, got {line!r}"
    return int(line[1:]), rest


RIDERS = [
    [b"TIME"],
    [b"INFO"],
    [b"PING"],
    [b"ZREVRANGEBYSCORE", b"{t}~m", b"+inf", ANY, b"WITHSCORES", b"LIMIT", b"0", b"1000"],
    [b"PEXPIRE", b"{t}~m", ANY],
]
"""Commands that go along with others."""


def meant(command: list[bytes]) -> bool:
    """Tell whether a command is one that goes along with others, and nothing else."""
    return any(matches(command, rider) for rider in RIDERS)


def matches(command: list[bytes], expected: list[bytes]) -> bool:
    return len(command) == len(expected) and all(e in (ANY, c) for c, e in zip(command, expected, strict=True))


Expected = Callable[[bytes, bytes], list[list[bytes]]]

SAYS: dict[str, tuple[Callable[[Any, str, Any], Any], Expected]] = {
    "get": (lambda cache, key, value: cache.get(key), lambda name, lease: [[b"GET", name]]),
    "get_many": (
        lambda cache, key, value: cache.get_many([key, "b"]),
        lambda name, lease: [[b"MGET", name, b"t:b"]],
    ),
    "set": (
        lambda cache, key, value: cache.set(key, value, tags=["x"]),
        lambda name, lease: [[b"DEL", lease], [b"SET", name, ANY, b"PX", ANY]],
    ),
    "delete": (lambda cache, key, value: cache.delete(key), lambda name, lease: [[b"DEL", lease], [b"DEL", name]]),
    "add": (
        lambda cache, key, value: cache.add(key, value),
        lambda name, lease: [[b"EVALSHA", ANY, b"2", name, lease, b"", ANY, ANY]],
    ),
    "incr": (
        lambda cache, key, value: cache.incr(key, 7),
        lambda name, lease: [[b"GET", name], [b"EVALSHA", ANY, b"2", name, lease, b"7", ANY, ANY, b""]],
    ),
    "exists": (lambda cache, key, value: cache.exists(key), lambda name, lease: [[b"GET", name]]),
    "invalidate_tags": (
        lambda cache, key, value: cache.invalidate_tags(key),
        lambda name, lease: [[b"EVALSHA", ANY, b"1", b"{t}~m", ANY, ANY, ANY, ANY, b"t:" + name[2:]]],
    ),
    "scan": (
        lambda cache, key, value: cache.scanned("*" + key),
        lambda name, lease: [[b"SCAN", b"0", b"MATCH", ANY, b"COUNT", b"500"]],
    ),
}

keys = st.text(
    st.characters(exclude_categories=["Z", "C"], exclude_characters="{}:"), min_size=1, max_size=20
) | st.sampled_from(["*1", "$8", "\\r\\n", "'\";", "a:$-1:b"])
hostile = st.sampled_from([INJECTED, INJECTED.decode(), {"a": INJECTED}]) | st.binary(max_size=30) | texts


def only_what_was_meant(examples: settings) -> None:
    """Say things with arguments of all kinds, and read what arrived."""
    # Nobody listens here: that connection has a life of its own.
    with served(Scribe()) as server, broken(Listener, "start", lambda listener: None):
        cache = Cache(server.url, namespace="t", near=None, observers=(), timeout=5.0, pool_min=1)
        cache.open()
        asyncio.run(cache.aio.get("a:1"))

        @examples
        @given(st.sampled_from(FLAVOURS), st.sampled_from(sorted(SAYS)), keys, hostile)
        def said(flavour: str, verb: str, key: str, value: Any) -> None:
            call, expects = SAYS[verb]
            name = f"t:{key}".encode()
            del server.heard[:]

            async def say() -> CacheError | None:
                try:
                    await call(face(cache, flavour), key, value)
                except CacheError as error:
                    return error
                return None

            error = asyncio.run(say()) if flavour == "async" else drive(say())
            heard = parsed(bytes(server.heard))
            if flavour == "async" and heard:
                assert heard[:3] == GREETED, heard[:3]
                heard = heard[3:]
            told = [command for command in heard if not meant(command)]
            if not told:  # it was refused before
                assert isinstance(error, (CodecError, InvalidKeyError)), error
                return
            expected = expects(name, b"{" + name + b"}~l")
            assert len(told) == len(expected), told
            assert all(map(matches, told, expected)), f"{told} is not {expected}"

        said()
        cache.close()


def test_on_the_wire_stands_what_was_meant_byte_for_byte() -> None:
    only_what_was_meant(Examples)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_on_the_wire_stands_what_was_meant_byte_for_byte_for_long() -> None:
    only_what_was_meant(Many)


@pytest.mark.parametrize(
    "written",
    [
        b"GET t:a" + INJECTED,  # as a line
        b"*2\r\n$3\r\nGET\r\n$3\r\nt:a" + INJECTED,  # with a length that is not the argument's
    ],
)
def test_a_command_that_says_more_than_was_meant_is_noticed(written: bytes) -> None:
    with noticed():
        assert parsed(written) == [[b"GET", b"t:a" + INJECTED]]


@given(texts, texts, st.sampled_from(FLAVOURS))
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@example(INJECTED.decode(), INJECTED.decode(), "sync")
def test_user_and_password_stand_in_the_greeting_and_nowhere_else(user: str, password: str, flavour: str) -> None:
    with suppress(UnicodeEncodeError), served(Scribe()) as server:
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@"
        cache = Cache(server.url.replace("//", f"//{login}"), namespace="t", near=None, observers=(), pool_min=1)

        async def ask() -> None:
            with suppress(CacheError):
                await face(cache, flavour).get("a:1")
            await face(cache, flavour).close()

        asyncio.run(ask()) if flavour == "async" else drive(ask())
        hello, *rest = parsed(bytes(server.heard))
        words = [user.encode() or b"default", password.encode()]
        assert hello == [b"HELLO", b"3", *([b"AUTH", *words] if user or password else [])]
        assert rest[:2] == GREETED[1:]
        assert [command for command in rest[2:] if not meant(command)] == [[b"GET", b"t:a:1"]]
