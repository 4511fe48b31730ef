"""Addresses: completed from the environment when they are used, and shown without what is secret."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwright.config import Config, Project
from loopwright.errors import InvalidConfig
from loopwright.monitor.alerting import channel
from loopwright.monitor.alerting.addresses import Address, addresses

_TOKEN = st.text("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789-_", min_size=8, max_size=24)
_PASSWORD = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="${}"), min_size=8)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mailtos://watch:${PW}@mail.example.com?to=ops@example.com", "mailtos://mail.example.com"),
        ("mailto://mail.example.com:2525?from=a@b.org&to=c@d.org", "mailto://mail.example.com:2525"),
        ("json://127.0.0.1:8080/hook/T0K3N", "json://127.0.0.1:8080"),
        ("json://${HOST}:${PORT}/hook", "json://${HOST}:${PORT}"),
        ("slack://T1/T2/T3/#alerts", "slack://***"),
        ("tgram://123456:abcdef/789", "tgram://***"),
        ("${NOTIFY_URL}", "${NOTIFY_URL}"),
        ("mailto://user:pa/ss@host", "mailto://***"),
        ("mailto://user:pa?ss@host", "mailto://***"),
        ("mailto://user:p@ss@host", "mailto://***"),
        ("a password somebody pasted", "***"),
    ],
)
def test_only_the_service_and_its_server_are_shown(text: str, shown: str) -> None:
    """Where a token could stand instead of a server, nothing is shown."""
    assert Address(text).name.rpartition(" #")[0] == shown


def test_two_channels_of_one_service_are_told_apart_and_one_given_twice_is_one() -> None:
    """The name is the identity of a delivery."""
    one, other = "slack://T1/T2/T3/#alerts", "slack://T1/T2/T3/#night"
    assert len(addresses([one, other, one])) == 2


@settings(deadline=None)
@given(token=_TOKEN, password=_PASSWORD)
def test_no_secret_is_in_a_name_or_in_an_error(token: str, password: str) -> None:
    """As it is, and as it is spelled in an address."""
    environment = {"TOKEN": token, "PASSWORD": password}
    address = Address("json://me:${PASSWORD}@host/${TOKEN}?+Authorization=Bearer ${TOKEN}")
    whole = address.complete(environment)
    for said in (whole, f"refused {password}", f"404 /{token} of {whole!r}", f"login {password!s} bad"):
        hidden = address.hide(said, environment)
        assert token not in hidden
        assert password not in hidden
    assert token not in address.name


@settings(deadline=None)
@given(password=_PASSWORD)
def test_a_password_may_hold_any_characters(password: str) -> None:
    """Apprise gets the password that is in the environment, and the right host."""
    whole = Address("json://me:${PASSWORD}@127.0.0.1:9/hook").complete({"PASSWORD": password})
    service = channel._service(Address(whole.replace("$", "%24")), channel._Listening())
    assert service.password == password
    assert service.host == "127.0.0.1"


def test_a_variable_can_be_a_whole_address() -> None:
    """Nothing of it is quoted then."""
    assert Address("${URL}").complete({"URL": "slack://A/B/C"}) == "slack://A/B/C"


def test_a_missing_variable_is_named() -> None:
    """An empty one is a missing one."""
    with pytest.raises(InvalidConfig, match=r"needs \$\{SMTP_PASSWORD\}") as caught:
        Address("mailto://me:${SMTP_PASSWORD}@host").complete({"SMTP_PASSWORD": ""})
    assert "export SMTP_PASSWORD" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slck://T0KENVALUE/B/C", "Did you mean slack://?"),
        ("slack://T0KENVALUE", "no complete address of slack"),
        ("T0KENVALUE", "is no address"),
        ("mailto://", "no complete address of mailto"),
    ],
)
def test_a_wrong_address_is_named_without_its_secret(text: str, says: str) -> None:
    """With what is wrong, and how it should look."""
    with pytest.raises(InvalidConfig) as caught:
        channel.check(Address(text))
    assert says in str(caught.value)
    assert "Such as mailtos://" in str(caught.value)
    assert "T0KENVALUE" not in str(caught.value)


def test_one_address_alone_is_taken_and_never_printed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """An error of the configuration prints values; not these."""
    assert Config.model_validate({"alerts": {"to": "json://host"}}).alerts.to == ("json://host",)
    (tmp_path / "loopwright.toml").write_text(
        '[alerts]\nto = ["json://me:hunter22@host"]\nescalate_after = "1h"\n'
    )
    with pytest.raises(InvalidConfig, match="escalate_after and escalate_to belong together") as caught:
        Project(tmp_path)
    assert "hunter22" not in str(caught.value)
