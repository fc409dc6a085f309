"""Declared types."""


class Schema:
    """How values of one declared type are written, read and checked."""

    plain: bool
    """Whether values of this type describe themselves, so that no schema is stored with them."""
    fingerprint: bytes
    """8 bytes that change when the type changes."""
