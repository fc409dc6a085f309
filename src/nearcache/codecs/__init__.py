"""Values to bytes and back: the envelope, self-describing values, declared types."""
