"""Counters where no engine counts."""

import pytest

from nearcache.backends.counting import counted
from nearcache.codecs.envelope import VERSION
from nearcache.errors import CodecError


@pytest.mark.parametrize("fresh", [b"", bytes([VERSION])])
@pytest.mark.parametrize("raw", [b"", b"text", b"\xbf", bytes([VERSION]) + bytes(60), b"\0" * 60])
def test_a_record_that_holds_no_integer_is_refused_by_its_key(raw: bytes, fresh: bytes):
    with pytest.raises(CodecError, match=r"^'users:1' holds no integer to add to$"):
        counted("users:1", raw, 1, fresh)
