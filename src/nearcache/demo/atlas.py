"""The slow source: 34,000 cities in SQLite, and questions that take it tens to hundreds of milliseconds."""

import asyncio
import math
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EARTH_RADIUS = 6371.0
NEARBY = 100.0
"""Kilometres."""

CITY = """
    WITH here AS (SELECT * FROM city WHERE id = ?)
    SELECT here.id, here.name, country.name, here.population, here.mayor,
           (SELECT count(*) + 1 FROM city WHERE city.country = here.country AND city.population > here.population),
           count(*) - 1,
           sum(city.population) - here.population
    FROM here
    JOIN country ON country.code = here.country
    JOIN city ON (city.x - here.x) * (city.x - here.x)
               + (city.y - here.y) * (city.y - here.y)
               + (city.z - here.z) * (city.z - here.z) <= ? * ?
    GROUP BY here.id
"""

COUNTRY = """
    SELECT country.name, count(*), sum(lonely.population), lonely.name, sqrt(max(lonely.gap))
    FROM country
    JOIN (
        SELECT city.country, city.name, city.population,
               min((city.x - other.x) * (city.x - other.x)
                 + (city.y - other.y) * (city.y - other.y)
                 + (city.z - other.z) * (city.z - other.z)) AS gap
        FROM city JOIN city AS other ON other.country = city.country AND other.id <> city.id
        WHERE city.country = ?
        GROUP BY city.id
    ) AS lonely ON lonely.country = country.code
"""


@dataclass(frozen=True)
class City:
    """A city and what is around it: how many cities within 100 km, and how many people live there."""

    id: int
    name: str
    country: str
    population: int
    mayor: str
    rank_in_country: int
    cities_nearby: int
    people_nearby: int


@dataclass(frozen=True)
class Country:
    """A country and its loneliest city: the one whose nearest neighbour in the country is farthest away."""

    name: str
    cities: int
    people: int
    loneliest_city: str
    kilometres: float


class Atlas:
    """Answers from SQLite; `queries` counts the slow ones of this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.queries: int = 0

    def city(self, city_id: int) -> City:
        """Look at every city on earth to find those nearby."""
        (row,) = self._ask(CITY, city_id, NEARBY / EARTH_RADIUS, NEARBY / EARTH_RADIUS)
        return City(*row)

    def country(self, code: str) -> Country:
        """Compare every city of a country with every other one."""
        ((name, cities, people, loneliest, gap),) = self._ask(COUNTRY, code)
        return Country(name, cities, people, loneliest, round(gap * EARTH_RADIUS, 1))

    async def country_aio(self, code: str) -> Country:
        """Do the same without blocking the event loop."""
        return await asyncio.to_thread(self.country, code)

    def update_mayor(self, city_id: int, mayor: str) -> City:
        """Write a city's mayor, and return the city as it is now."""
        with closing(self._connect()) as database, database:
            database.execute("UPDATE city SET mayor = ? WHERE id = ?", (mayor, city_id))
        return self.city(city_id)

    def largest(self, count: int, skip: int = 0) -> list[int]:
        """Return the ids of the largest cities, without the very largest if `skip` is given."""
        query = "SELECT id FROM city ORDER BY population DESC, id LIMIT ? OFFSET ?"
        with closing(self._connect()) as database:
            return [city_id for (city_id,) in database.execute(query, (count, skip))]

    def _ask(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        with self._lock:
            self.queries += 1
        with closing(self._connect()) as database:
            return database.execute(query, arguments).fetchall()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=30)
        database.create_function("sqrt", 1, math.sqrt, deterministic=True)
        return database
