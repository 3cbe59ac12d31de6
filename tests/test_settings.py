"""What Kedro asks the project for comes at once: every command reads it, a mistyped one too."""

import subprocess
import sys


def test_settings_are_read_without_what_takes_long_to_import() -> None:
    code = """
import sys
import tikmix_pipeline.settings
late = {"matplotlib", "mlflow", "pandas", "scipy", "sklearn", "torch", "transformers"}
print(sorted(late & sys.modules.keys()))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout == "[]\n", ended.stderr
