"""Add up what the stages of script/test reported; the last line is `N passed, N failed`."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main(results: Path) -> int:
    """Print skipped and failed tests by name and the sum; return 0 where nothing failed.

    `results` holds STAGE.code (exit code) and, for a stage that ran pytest, STAGE.xml (JUnit's format). A stage
    without tests of its own counts as one test, and so does one that failed beside its tests.
    """
    passed = failed = skipped = 0
    for code_file in sorted(results.glob("*.code"), key=lambda path: path.stat().st_mtime):
        stage, failed_before = code_file.stem, failed
        report = code_file.with_suffix(".xml")
        cases = list(ET.parse(report).getroot().iter("testcase")) if report.is_file() else []
        for case in cases:
            name = f"{stage}: {case.get('classname')}::{case.get('name')}"
            if (skip := case.find("skipped")) is not None:
                skipped += 1
                print(f"skipped {name}: {skip.get('message')}")
            elif case.find("failure") is not None or case.find("error") is not None:
                failed += 1
                print(f"FAILED  {name}")
            else:
                passed += 1
        if int(code_file.read_text()) != 0 and failed == failed_before:
            failed += 1
            print(f"FAILED  {stage}")
        elif not cases:
            passed += 1
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
