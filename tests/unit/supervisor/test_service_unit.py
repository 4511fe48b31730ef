"""The project as a service of the machine: what is written, and what is said where nothing could start it."""

import plistlib
import shutil
import sys
from pathlib import Path

import pytest

from loopwright.config import Project
from loopwright.errors import NotFound, Unavailable
from loopwright.supervisor import service
from loopwright.supervisor.service import Scope


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project whose folder needs quoting."""
    root = tmp_path / "my 100% project"
    root.mkdir()
    (root / "loopwright.toml").write_text('[project]\nname = "my project"\n')
    return Project(root)


@pytest.mark.skipif(sys.platform == "darwin", reason="launchd has no units")
@pytest.mark.parametrize("scope", ["user", "system"])
def test_the_unit_starts_this_project_with_this_python(project: Project, scope: Scope) -> None:
    """All paths are absolute and escaped; systemd finds nothing wrong with it."""
    found = service.service(project, scope)
    lines = found.text.splitlines()
    assert found.path.name == "loopwright-my-project.service"
    assert f"ExecStart={sys.executable} -m loopwright.supervisor --all" in lines
    root = str(project.root).replace("%", "%%")
    assert f"WorkingDirectory={root}" in lines
    assert f'Environment="LOOPWRIGHT_PROJECT={root}"' in lines
    assert {"Restart=on-failure", "After=network-online.target", "KillMode=mixed"} <= set(lines)
    assert ("ProtectSystem=full" in lines) == (scope == "system")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    assert service.verify(found) == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_a_broken_unit_is_noticed(project: Project) -> None:
    """Else `verify` would prove nothing."""
    found = service.service(project, "system")
    broken = found.text.replace("Restart=on-failure", "Restart=sometimes")
    assert "restart specifier" in service.verify(
        service.Service(found.name, "system", "systemd", found.path, broken)
    )


def test_secrets_are_not_written_into_the_unit(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address with a password in it belongs into the file that only the user can read."""
    monkeypatch.setenv("LOOPWRIGHT_LEDGER", "postgresql+psycopg://me:hush-hush@db/ledger")
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    text = service.service(project, "user").text
    assert "hush-hush" not in text
    assert "PREFECT_API_URL=http://prefect:4200/api" in text
    assert "EnvironmentFile=-" in text


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")
@pytest.mark.skipif(sys.platform == "darwin", reason="launchd runs here")
def test_without_a_manager_the_unit_and_a_way_without_are_said(project: Project) -> None:
    """In a container nothing is written, and nothing is left to guess."""
    found = service.service(project, "user")
    with pytest.raises(Unavailable, match="No systemd runs here") as caught:
        service.install(project, found)
    assert found.text in caught.value.valid
    assert "@reboot" in caught.value.hint
    assert (service.state(found), found.path.exists()) == ("not installed", False)
    with pytest.raises(NotFound, match="is not there"):
        service.uninstall(found)


def test_macs_get_a_property_list(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same process with the same environment."""
    monkeypatch.setattr(sys, "platform", "darwin")
    found = service.service(project, "user")
    body = plistlib.loads(found.text.encode())
    assert found.path.parts[-3:] == ("Library", "LaunchAgents", "loopwright.my-project.plist")
    assert body["ProgramArguments"] == [sys.executable, "-m", "loopwright.supervisor", "--all"]
    assert body["EnvironmentVariables"]["LOOPWRIGHT_PROJECT"] == str(project.root)
    assert (body["RunAtLoad"], body["KeepAlive"]) == (True, {"SuccessfulExit": False})
