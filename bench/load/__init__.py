"""A load that counts honestly: requests on a schedule that waits for nobody, each one accounted for, none repeated.

`python -m bench.load --help` is the command. For tests there is `Load`, which runs it in a process of its own:

    with Load("http://127.0.0.1:8081", rate=200, websockets=5) as load:
        deploy()
        report = load.stop()
    assert not report.failed, report.table()

Times are seconds of the clock that never jumps (`time.monotonic()`), which all processes of a machine share.
"""

from bench.load.process import Load, LoadError
from bench.load.report import Failure, Report, Request, Seen, WebSocketSession
from bench.load.settings import Settings

__all__ = ["Failure", "Load", "LoadError", "Report", "Request", "Seen", "Settings", "WebSocketSession"]
