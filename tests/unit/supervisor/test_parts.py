"""Where the running parts are, and what their logs say."""

import os
from pathlib import Path

from loopwright import parts
from loopwright.config import Project


def test_the_log_of_a_kind_is_the_one_written_last(tmp_path: Path) -> None:
    """Why a part could not be started is told, not what an earlier process of its kind had said."""
    (tmp_path / "loopwright.toml").write_text("")
    project = Project(tmp_path)
    logs = project.run / "logs"
    logs.mkdir(parents=True)
    for place, (name, text) in enumerate(
        {"serving-1": "served", "serving": "no key", "server": "other"}.items()
    ):
        (logs / f"{name}.log").write_text(text)
        os.utime(logs / f"{name}.log", (1000 + place, 1000 + place))
    assert parts.tail(project, "serving").endswith("serving.log:\nno key")
    assert parts.tail(project, "serving-1").endswith("served")
    assert parts.tail(project, "runner") == ""
