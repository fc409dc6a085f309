"""The error for an intact value of another type than the reader knows or asks for."""

from nearcache.errors import CodecError


class SchemaMismatch(CodecError):
    """A stored value is intact, but of another declared type: another release or another reader can use it."""
