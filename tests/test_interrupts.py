"""Ctrl-C before a run has begun is told in one line, and ends the process by its signal."""

import signal
import subprocess
import sys

IMPORTING = """
import sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "pydantic":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
import tikmix_pipeline.settings
"""


def ended(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_ctrl_c_while_libraries_are_imported_is_told_in_one_line() -> None:
    result = ended(IMPORTING)
    assert result.stderr.split("\n") == ["", "Error: Interrupted while no run was under way.", ""]
    assert result.returncode == -signal.SIGINT


def test_all_other_errors_are_told_as_ever() -> None:
    result = ended("import tikmix_pipeline.interrupts\nraise ValueError('other')")
    assert "Traceback" in result.stderr
    assert "ValueError: other" in result.stderr
    assert result.returncode == 1
