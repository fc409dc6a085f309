"""What limits promise, written down without any of the library: the units that were admitted, and nothing else."""

from collections.abc import Sequence

Quota = tuple[int, int]
"""So many units in so many microseconds."""

Admission = tuple[int, int]
"""When something was admitted (microseconds), and how many units it was."""


class Model:
    """A limiter for one identity, which looks through all that it has ever admitted."""

    def __init__(self, kind: str, quotas: Sequence[Quota]) -> None:
        self.kind = kind
        self.quotas = quotas
        self.admitted: list[Admission] = []

    def allows(self, now: int, cost: int) -> bool:
        """Tell whether every limit would be kept if this were admitted now, at the end of all."""
        return not any(broken_at_the_end(self.kind, quota, [*self.admitted, (now, cost)]) for quota in self.quotas)

    def left(self, now: int) -> list[int]:
        """Return of each limit how many units would be allowed now."""
        return [self._room(now, quota) for quota in self.quotas]

    def _room(self, now: int, quota: Quota) -> int:
        tries = range(quota[0], 0, -1)
        ends = ([*self.admitted, (now, units)] for units in tries)
        return next((end[-1][1] for end in ends if not broken_at_the_end(self.kind, quota, end)), 0)


def broken_at_the_end(kind: str, quota: Quota, admitted: Sequence[Admission]) -> bool:
    """Tell whether the last admission breaks a limit that was kept until then."""
    count, period = quota
    now = admitted[-1][0]
    if kind == "fixed":
        return sum(units for at, units in admitted if at // period == now // period) > count
    if kind == "sliding":
        return sum(units for at, units in admitted if at > now - period) > count
    together = 0
    for at, units in reversed(admitted):  # in any span of time: the count, and what has come back in it
        together += units
        if together * period > count * (period + now - at):
            return True
    return False


def first_broken(kind: str, quota: Quota, admitted: Sequence[Admission]) -> Admission | None:
    """Return the first admission that breaks a limit, None if it was kept."""
    in_order = sorted(admitted)
    for end in range(1, len(in_order) + 1):
        if broken_at_the_end(kind, quota, in_order[:end]):
            return in_order[end - 1]
    return None
