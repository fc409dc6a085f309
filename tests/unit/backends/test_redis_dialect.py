"""The parser of those who have asked for no messages."""

import hiredis
import pytest

from nearcache.backends.redis.dialect import NONSENSE, reader
from nearcache.backends.transport.dialect import INCOMPLETE

MESSAGE = b">2\r\n+message\r\n+x\r\n"


def test_messages_between_replies_are_passed_over() -> None:
    parser = reader()
    parser.feed(MESSAGE + b"+one\r\n" + MESSAGE + MESSAGE + b"-ERR two\r\n" + MESSAGE + b"$5\r\nth")
    assert parser.gets() == b"one"
    assert isinstance(parser.gets(), hiredis.ReplyError)
    assert parser.gets() is INCOMPLETE
    parser.feed(b"ree\r\n")
    assert parser.has_data()
    assert parser.gets() == b"three"
    assert not parser.has_data()


def test_what_is_no_reply_is_nonsense() -> None:
    parser = reader()
    parser.feed(MESSAGE + b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(NONSENSE):
        parser.gets()
