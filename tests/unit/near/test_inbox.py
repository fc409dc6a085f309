"""Whoever waits for a key hears how its lease ended, and nobody hears of other keys."""

import threading

import pytest

from nearcache.near.inbox import Inbox, Mail


@pytest.fixture
def inbox() -> Inbox:
    """An inbox in which nobody waits."""
    return Inbox()


def test_all_who_wait_for_a_key_hear_and_nobody_else(inbox: Inbox):
    first, second, other = inbox.expect("a"), inbox.expect("a"), inbox.expect("b")
    inbox.deliver("a", "token", "filled")
    assert (first.heard, second.heard, other.heard) == (("token", "filled"), ("token", "filled"), None)


def test_a_message_that_nobody_waits_for_is_lost(inbox: Inbox):
    inbox.deliver("a", "token", "filled")
    assert inbox.expect("a").heard is None


def test_who_has_closed_hears_nothing_and_the_others_still_do(inbox: Inbox):
    closed, open_ = inbox.expect("a"), inbox.expect("a")
    closed.close()
    closed.close()
    inbox.deliver("a", "token", "filled")
    assert (closed.heard, open_.heard) == (None, ("token", "filled"))


def test_nothing_is_kept_of_waits_that_ended(inbox: Inbox):
    for mail in [inbox.expect(key) for key in ("a", "a", "b")]:
        mail.close()
    assert inbox._mails == {}


def test_wakers_are_called_once_in_their_order(inbox: Inbox):
    mail, called = inbox.expect("a"), list[str]()
    assert mail.watch(lambda: called.append("first"))
    assert mail.watch(lambda: called.append("second"))
    inbox.deliver("a", "token", "retry")
    inbox.deliver("a", "token", "filled")
    assert called == ["first", "second"]
    assert mail.heard == ("token", "filled")


def test_who_begins_to_watch_too_late_is_told_so_and_not_called(inbox: Inbox):
    mail, called = inbox.expect("a"), list[str]()
    inbox.deliver("a", "token", "filled")
    assert not mail.watch(lambda: called.append("late"))
    inbox.deliver("a", "token", "filled")
    assert called == []


def test_who_left_is_not_called(inbox: Inbox):
    mail, called = inbox.expect("a"), list[str]()

    def waker() -> None:
        called.append("gone")

    mail.watch(waker)
    mail.leave(waker)
    mail.leave(waker)
    inbox.deliver("a", "token", "filled")
    assert called == []


def test_a_stir_has_everybody_look_again(inbox: Inbox):
    mails, called = [inbox.expect(key) for key in ("a", "b")], list[str]()
    for mail in mails:
        mail.watch(lambda: called.append("looks"))
    inbox.stir()
    assert called == ["looks", "looks"]
    assert [mail.heard for mail in mails] == [("", ""), ("", "")]


def test_a_waker_may_close_and_expect_again(inbox: Inbox):
    mail, again = inbox.expect("a"), list[Mail]()

    def waker() -> None:
        mail.close()
        again.append(inbox.expect("a"))

    mail.watch(waker)
    inbox.deliver("a", "token", "retry")
    assert [each.heard for each in again] == [None]
    inbox.deliver("a", "next", "filled")
    assert (mail.heard, again[0].heard) == (("token", "retry"), ("next", "filled"))


def test_a_fork_gets_another_name_and_nobody_waits_there(inbox: Inbox):
    mail, name = inbox.expect("a"), inbox.name
    inbox.after_fork()
    inbox.deliver("a", "token", "filled")
    mail.close()
    assert inbox.name != name
    assert mail.heard is None


def test_no_message_is_lost_between_expecting_and_watching(inbox: Inbox):
    """However delivering and watching fall together, the waker is called or the watcher told."""
    for number in range(300):
        mail, called, started = inbox.expect("a"), threading.Event(), threading.Barrier(2)

        def deliver(token: str = str(number), started: threading.Barrier = started) -> None:
            started.wait()
            inbox.deliver("a", token, "filled")

        thread = threading.Thread(target=deliver)
        thread.start()
        started.wait()
        assert not mail.watch(called.set) or called.wait(10)
        assert mail.heard == (str(number), "filled")
        mail.close()
        thread.join()
