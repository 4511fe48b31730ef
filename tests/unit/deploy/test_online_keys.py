"""API keys: made once, kept as a digest, needed where others can ask, revoked within a turn."""

from pathlib import Path

import pytest

from loopwright.config import Project
from loopwright.deploy.online import keys
from loopwright.deploy.online.keys import Keys, Unauthorized
from loopwright.errors import Conflict, Denied, InvalidInput, NotFound
from loopwright.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Return the ledger of a new project."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    (tmp_path / "loopwright.toml").write_text("")
    return Ledger.open(Project(tmp_path))


def test_without_keys_this_machine_asks_freely(ledger: Ledger) -> None:
    """Bound to the machine itself and with no key made, nothing is needed, and other headers do no harm."""
    asked = Keys(ledger)
    assert not asked.needed
    assert asked.check(None) is None
    assert asked.check(b"Basic dXNlcjpwYXNz") is None
    asked.require_for("127.0.0.1")


def test_a_key_is_needed_as_soon_as_one_was_made(ledger: Ledger) -> None:
    """Both headers carry it; its name comes back; another key, a part of it, or none is a 401 that says how."""
    asked = Keys(ledger)
    key = keys.create(ledger, "shop").encode()
    assert asked.check(None) is None
    asked.refresh()
    assert asked.check(key) == asked.check(b"Bearer " + key) == asked.check(b"bearer  " + key) == "shop"
    for wrong in (None, b"", b"Bearer ", key[:-1], key + b"x", b"Basic " + key, key.swapcase(), b"\xff\x00"):
        with pytest.raises(Unauthorized, match="authorization: Bearer <key>") as caught:
            asked.check(wrong)
        assert (caught.value.http_status, caught.value.code) == (401, "unauthorized")
        assert caught.value.headers == ((b"www-authenticate", b"Bearer"),)
        assert key.decode() not in str(caught.value.to_dict())


def test_the_key_itself_is_nowhere_in_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    """Neither state, event nor any file of the project has the text of the key."""
    key = keys.create(ledger, "shop")
    [state] = ledger.states("api_key")
    assert key not in str(state.value)
    assert len(state.value["digest"]) == 64
    assert ledger.events("api_key.created")[0].payload == {"name": "shop"}
    ledger.close()
    found = [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert found == []


def test_a_revoked_key_is_refused_and_its_name_can_be_given_again(ledger: Ledger) -> None:
    """After one refresh the key is refused; a new key of that name is another key."""
    asked = Keys(ledger)
    first = keys.create(ledger, "shop").encode()
    other = keys.create(ledger, "app").encode()
    with pytest.raises(Conflict, match="a key 'shop' already"):
        keys.create(ledger, "shop")
    keys.revoke(ledger, "shop")
    asked.refresh()
    assert asked.check(other) == "app"
    with pytest.raises(Unauthorized, match="not valid"):
        asked.check(first)
    with pytest.raises(Conflict, match="was revoked on"):
        keys.revoke(ledger, "shop")
    second = keys.create(ledger, "shop").encode()
    asked.refresh()
    assert asked.check(second) == "shop"
    with pytest.raises(Unauthorized):
        asked.check(first)


def test_taking_the_last_key_away_does_not_open_the_door(ledger: Ledger) -> None:
    """Revoked keys still make one needed; only forgetting them is the way back."""
    asked = Keys(ledger)
    keys.create(ledger, "shop")
    with pytest.raises(Conflict, match="is valid"):
        keys.forget(ledger, "shop")
    keys.revoke(ledger, "shop")
    asked.refresh()
    with pytest.raises(Unauthorized):
        asked.check(None)
    keys.forget(ledger, "shop")
    asked.refresh()
    assert asked.check(None) is None
    assert keys.known(ledger) == []
    with pytest.raises(NotFound):
        keys.forget(ledger, "shop")


def test_bound_elsewhere_a_server_without_a_key_does_not_start(ledger: Ledger) -> None:
    """Where others can reach it a key is needed at the start and with each request."""
    asked = Keys(ledger)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(Denied, match="has no API key") as caught:
            asked.require_for(host)
        assert "loopwright key create" in caught.value.hint
    assert asked.needed
    with pytest.raises(Unauthorized):
        asked.check(None)
    key = keys.create(ledger, "shop").encode()
    asked.refresh()
    asked.require_for("0.0.0.0")
    assert asked.check(key) == "shop"
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "::1%lo"):
        assert keys.is_loopback(host)
    keys.revoke(ledger, "shop")
    asked.refresh()
    with pytest.raises(Denied):
        asked.require_for("0.0.0.0")


def test_only_what_says_nothing_answers_without_a_key() -> None:
    """Alive and ready are open, and what only looks like them is not."""
    for path in ("/health", "/ping", "/ready", "/v2/health/live", "/v2/health/ready"):
        assert keys.is_open(path)
    for path in (
        "/",
        "/predict/api",
        "/metrics",
        "/healthy",
        "/health/",
        "/v2",
        "/v2/health/../models",
        "/version",
    ):
        assert not keys.is_open(path)


def test_the_header_made_for_keys_goes_first() -> None:
    """`x-api-key` wins over `authorization`, wherever each stands; others are passed over."""
    both = [(b"authorization", b"Bearer a"), (b"accept", b"*/*"), (b"x-api-key", b"b")]
    assert keys.sent(both) == keys.sent(both[::-1]) == b"b"
    assert keys.sent(both[:2]) == b"Bearer a"
    assert keys.sent([(b"accept", b"*/*")]) is None


def test_names_are_plain_and_unknown_ones_name_the_nearest(ledger: Ledger) -> None:
    """A name can be no address, has no blanks or line breaks; an unknown one is answered with the nearest."""
    for name in ("", "10.0.0.1", "fe80::1", "a b", "a\n", "x" * 65, "-a"):
        with pytest.raises(InvalidInput, match="no name of a key"):
            keys.create(ledger, name)
    keys.create(ledger, "shop")
    with pytest.raises(NotFound, match="Did you mean 'shop'"):
        keys.revoke(ledger, "shp")
