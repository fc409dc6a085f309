"""What a cache does, written once as coroutines for both flavours; every effect goes through `_io` or a backend."""
