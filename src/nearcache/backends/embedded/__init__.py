"""embedded://: a Valkey server of this user's own, started when it is needed, and shared by all processes of the user.

With a path (`embedded:///absolute/path`) the server keeps its data there, in an append-only file. `?maxmemory=` bounds
its memory (256mb; a server that runs already keeps its bound), `?keep=true` leaves it running when the last one closes,
until somebody closes with `?keep=false`.
"""

from nearcache.backends.base import Backend
from nearcache.backends.embedded.posix import require_posix
from nearcache.backends.embedded.settings import parse
from nearcache.backends.registry import BackendSpec, Flavour
from nearcache.errors import ConfigError


def build(spec: BackendSpec, flavour: Flavour) -> Backend:
    """Build the backend of an embedded:// URL, opening and starting nothing.

    Raises `UnsupportedError` on a platform that cannot have it, and `ConfigError` for a wrong URL or a missing client
    library.
    """
    require_posix()
    settings = parse(spec.url)
    try:
        from nearcache.backends.embedded.backend import EmbeddedBackend
        from nearcache.backends.redis import heard
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("nearcache"):
            raise
        raise ConfigError(f'embedded:// needs the package {error.name}: pip install "nearcache[embedded]"') from error
    return heard(EmbeddedBackend(spec, flavour, settings))
