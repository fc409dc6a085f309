"""The rules of the house that no general linter knows: `python -m tools.lint`."""

import sys

from bench import report
from tools import engine, facade, shape


def main() -> int:
    """Print what breaks a rule; return 1 if anything does."""
    found = [*facade.check(), *engine.check(), *shape.check(), *report.check()]
    print("\n".join(found) if found else "house rules: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
