"""A visitor's session, from the first page to the day on which all of the user's sessions are ended.

The requests of a browser reach different processes, some of them at the same moment: each saves what it has changed,
and nothing else. The id from before the login is worth nothing after it, and who was late brings nothing back.
"""

from concurrent.futures import Executor, as_completed

from nearcache import Session, SessionLostError
from nearcache.demo import guide
from nearcache.demo.processes import processes
from nearcache.demo.stage import Stage

PROCESSES = 4
SAVES = 25
"""By each process."""

USER = 42
DEVICES = ("phone", "tablet", "television")


def play(stage: Stage) -> None:
    """Follow the session."""
    session = guide.cache.sessions.create({"language": "en"})
    with processes(PROCESSES) as pool:
        found = pool.submit(look, session.id).result()
        stage.report("another process finds it", found, found == {"language": "en"})
        session = _visit(stage, pool, session)
        _log_in(stage, pool, session)
        _end_all(stage, pool, session)


def _visit(stage: Stage, pool: Executor, session: Session) -> Session:
    """Have all processes save fields of their own at the same time."""
    fields = [f"page {number}" for number in range(PROCESSES)]
    visits = [pool.submit(visit, session.id, field) for field in fields]
    for each in stage.track(as_completed(visits), f"processes, {SAVES} saves each", PROCESSES):
        each.result()
    left = _loaded(session.id)
    kept = sum(left[field] for field in fields)
    stage.report("saves at the same time that were kept", f"{kept} of {PROCESSES * SAVES}", kept == PROCESSES * SAVES)
    return left


def _log_in(stage: Stage, pool: Executor, session: Session) -> None:
    """Make the session somebody's, under another id."""
    before = session.id
    session["user_id"] = USER
    guide.cache.sessions.rotate(session)
    found = pool.submit(look, before).result()
    stage.report("found by the id from before the login", found, found is None)
    found = pool.submit(look, session.id).result()
    same = found == dict(session)
    stage.report("found by the id from after it", "everything" if same else found, same)


def _end_all(stage: Stage, pool: Executor, session: Session) -> None:
    """End all sessions of the user, and let one who was late save."""
    others = [pool.submit(begin, device).result() for device in DEVICES]
    listed = sorted(fields["device"] for fields in guide.cache.sessions.of(USER) if "device" in fields)
    stage.report("other devices of the user", ", ".join(listed), listed == sorted(DEVICES))
    ended = guide.cache.sessions.destroy_all(USER)
    stage.report("sessions ended at once", ended, ended == 1 + len(DEVICES))
    session["late"] = True
    try:
        guide.cache.sessions.save(session)
        told = "stored"
    except SessionLostError as error:
        told = type(error).__name__
    stage.report("a request that saves afterwards gets", told, told == SessionLostError.__name__)
    left = [id for id in (session.id, *others) if pool.submit(look, id).result() is not None]
    stage.report("sessions that came back", len(left), not left)


def look(id: str) -> dict[str, object] | None:
    """Return the fields of a session, in a worker process."""
    session = guide.cache.sessions.load(id)
    return None if session is None else dict(session)


def visit(id: str, field: str) -> None:
    """Change one field of a session again and again, in a worker process."""
    for number in range(SAVES):
        session = _loaded(id)
        session[field] = number + 1
        guide.cache.sessions.save(session)


def begin(device: str) -> str:
    """Log in on another device, in a worker process, and return the id of the session."""
    return guide.cache.sessions.create({"user_id": USER, "device": device}).id


def _loaded(id: str) -> Session:
    session = guide.cache.sessions.load(id)
    if session is None:
        raise SessionLostError("nobody has ended it")
    return session
