"""A cache in front of the slow source, as a web service would have it. This is the file to copy.

Every process of the demo imports it and finds its settings in the environment: `CACHE_URL` says where the cache is,
`CITIES` where the database is.
"""

import os
from pathlib import Path

from nearcache import Cache
from nearcache.demo.atlas import Atlas, City, Country

atlas: Atlas = Atlas(Path(os.environ.get("CITIES", "cities.sqlite")))
cache: Cache = Cache.from_env()


@cache.cached("city:{city_id}", ttl="10m")
def city(city_id: int) -> City:
    """Return a city; SQLite is asked only if no process has asked for it in the last ten minutes."""
    return atlas.city(city_id)


@cache.cached("country:{code}", ttl="1h")
def country(code: str) -> Country:
    """Return a country."""
    return atlas.country(code)


@cache.aio.cached("country:{code}", ttl="1h")
async def country_aio(code: str) -> Country:
    """Return a country, in asyncio; the same key, so the same value."""
    return await atlas.country_aio(code)


@cache.writes("city:{city_id}", ttl="10m")
def update_mayor(city_id: int, mayor: str) -> City:
    """Write SQLite first, then the cache: what this returns is what everybody reads next."""
    return atlas.update_mayor(city_id, mayor)
