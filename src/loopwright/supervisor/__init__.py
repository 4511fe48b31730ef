"""The supervisor: starts the parts of a project, watches them, restarts what dies and stops them in order.

It runs in the background as one small process per project. `loopwright up` starts it and asks it for all parts;
a command that needs only the local server asks it for that one.
"""

from loopwright.supervisor.control import down, status, up

__all__ = ["down", "status", "up"]
