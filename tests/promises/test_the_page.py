"""The page of guarantees and the tests that try to break them belong together."""

import re

from tests.servers import CHECKOUT

NAMED = re.compile(r"tests/promises/(test_\w+\.py)")


def test_the_page_names_every_test_and_no_other() -> None:
    page = (CHECKOUT / "docs" / "guarantees.md").read_text()
    here = {path.name for path in (CHECKOUT / "tests" / "promises").glob("test_*.py")}
    assert set(NAMED.findall(page)) == here - {"test_the_page.py"}


def test_every_section_says_where_it_ends_and_what_tests_it() -> None:
    page = (CHECKOUT / "docs" / "guarantees.md").read_text()
    sections = page.split("\n## ")[1:]
    assert len(sections) > 8
    for section in sections:
        title = section.splitlines()[0]
        assert "Where it ends:" in section, title
        assert "\nTests: " in section, title


def test_the_page_links_to_what_exists() -> None:
    page = CHECKOUT / "docs" / "guarantees.md"
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        text = (page.parent / path).read_text() if path else page.read_text()
        slugs = {slug(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
        assert not heading or heading in slugs, target


def slug(title: str) -> str:
    """Return what a heading is linked by."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
