"""The check of sizes counts bodies without docstrings, and whole files."""

from tools.shape import BODY_LINES, FILE_LINES, check, overall


def function(lines: int) -> str:
    return 'def f():\n    """What it does.\n\n    More.\n    """\n' + "    a = 1\n" * lines


def test_a_body_at_the_limit_passes_and_one_above_it_does_not(tmp_path) -> None:
    short = "def g():\n    pass\n" * 20
    (tmp_path / "a.py").write_text(short + function(BODY_LINES))
    assert check(tmp_path) == []
    (tmp_path / "a.py").write_text(short + function(BODY_LINES + 1))
    assert "f has 41 lines" in check(tmp_path)[0]


def test_a_file_at_the_limit_passes_and_one_above_it_does_not(tmp_path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n" * FILE_LINES)
    assert check(tmp_path) == []
    (tmp_path / "a.py").write_text("a = 1\n" * (FILE_LINES + 1))
    assert "401 lines" in check(tmp_path)[0]


def test_most_bodies_have_to_be_short() -> None:
    assert overall([]) == []
    assert overall([5] * 9 + [30]) == []
    assert "median" in overall([6] * 10)[0]
    assert "nine in ten" in overall([1] * 8 + [30] * 2)[0]
