"""Results as a run of the bench leaves them, made up, and a time that only passes when it has to."""

from bench import rows


def run(row: rows.Row, ours: float = 1e-6, theirs: float = 2e-6) -> dict:
    """One run of a row in which every peer takes the same."""
    return {one.name: result(row, ours if one.name == rows.US else theirs) for one in row.contenders}


def result(row: rows.Row, best: float) -> dict:
    """One contender, measured three times."""
    samples = [best * 1.5, best, best * 3]
    more = ["visible"] if row.kind == "visible" else []
    return {"versions": {"python": "3.11.7"}, "copies": None} | dict.fromkeys([*row.kept, *more], samples)


def group(name: str, runs: int = 1, **taken: float) -> dict:
    """A whole file of results, as it is read."""
    place = {"commit": "abc", "date": "2026-11-25", "cpu": "2 × Some CPU", "system": "Linux 6", "python": "3.11.7"}
    measured = [{row.name: run(row, **taken) for row in rows.of_group(name)} for _ in range(runs)]
    return {"group": name, **place, "checks": ["True is not 1."], "minutes": 1.5, "runs": measured}


class Time:
    """Time that passes when somebody pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
