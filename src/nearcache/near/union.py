"""The coherence of a near tier with an engine of several nodes, each of which announces its own changes only.

Near values are vouched for while every node is heard, and for as long as the oldest of their proofs allows.
"""

import threading
from collections.abc import Iterable

from nearcache.near.coherence import Coherence, Session


class Union:
    """What is heard of several nodes, for any number of threads."""

    def __init__(self, coherence: Coherence) -> None:
        self.coherence: Coherence = coherence
        self._expected: frozenset[Member] = frozenset()
        self._proofs: dict[Member, float] = {}
        """When the last proof of each member was asked for that is heard."""
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew in a forked child, to which nobody announces anything yet."""
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._proofs = {}

    def expect(self, members: "Iterable[Member]") -> None:
        """Note which nodes have to be heard from now on."""
        with self._lock:
            self._expected = frozenset(members)
            self._proofs = {member: sent for member, sent in self._proofs.items() if member in self._expected}
            if not self._complete():
                self._end("not every node of the cluster is heard yet")
            elif self._session is None:
                self._session = self.coherence.begin(min(self._proofs.values()))

    def proven(self, member: "Member", sent: float) -> None:
        """Note that everything was heard that a node announced before `sent`."""
        with self._lock:
            if member not in self._expected:
                return
            self._proofs[member] = sent
            if self._complete():
                oldest = min(self._proofs.values())
                if self._session is None:
                    self._session = self.coherence.begin(oldest)
                else:
                    self.coherence.prove(self._session, oldest)

    def lost(self, member: "Member", why: str) -> None:
        """Note that a node is not heard any more."""
        with self._lock:
            self._proofs.pop(member, None)
            self._end(why)

    def _complete(self) -> bool:
        return bool(self._expected) and len(self._proofs) == len(self._expected)

    def _end(self, why: str) -> None:
        session, self._session = self._session, None
        self.coherence.end(session, why)


class Member:
    """The part of one node; to be used as a `Coherence` by the one who listens to it."""

    def __init__(self, union: Union) -> None:
        self._union = union
        self._session: Session | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is a near tier to be kept coherent at all."""
        return self._union.coherence.wanted

    @property
    def budget(self) -> float:
        """For how many seconds a proof holds."""
        return self._union.coherence.budget

    def begin(self, sent: float) -> Session:
        """Note that the node announces every change from now on."""
        self._session = session = Session()
        self._union.proven(self, sent)
        return session

    def prove(self, session: Session, sent: float) -> None:
        """Note that everything was heard that the node announced before `sent`."""
        if self._session is session:
            self._union.proven(self, sent)

    def end(self, session: Session | None, why: str) -> None:
        """Note that the node announces nothing any more."""
        if session is self._session:
            self._session = None
            self._union.lost(self, why)

    def doubt(self, why: str) -> None:
        """Note why there is no proof."""
        self._union.coherence.doubt(why)
