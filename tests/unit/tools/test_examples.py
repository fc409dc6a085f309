"""Examples are found in Markdown with their lines, and can be left out with a reason."""

from textwrap import dedent

from tools.examples import examples, pages, program

PAGE = dedent(
    """\
    # A page

    ```python
    a = 1
    ```

    - in a list:

      ```python
      if a:

          b = 2
      ```

    <!-- not run: needs a server -->
    ```python
    connect()
    ```

    ```bash
    make demo
    ```

    ```python
    assert (a, b) == (1, 2)
    ```
    """
)


def test_examples_are_found_with_their_lines_and_without_their_indent() -> None:
    found = list(examples(PAGE))
    assert [(one.line, one.skipped) for one in found] == [(4, None), (10, None), (17, "needs a server"), (25, None)]
    assert found[1].code == "if a:\n\n    b = 2\n"


def test_a_page_becomes_one_program_with_its_own_line_numbers(tmp_path) -> None:
    (tmp_path / "README.md").write_text(PAGE)
    code = program(tmp_path / "README.md")
    exec(compile(code, "README.md", "exec"), {})
    assert code.splitlines()[24] == "assert (a, b) == (1, 2)"
    assert "connect" not in code


def test_only_pages_with_examples_are_run(tmp_path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# No example")
    (tmp_path / "docs" / "b.md").write_text(PAGE)
    assert pages(tmp_path) == [tmp_path / "docs" / "b.md"]
