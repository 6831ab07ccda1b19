"""The integrations of engines import nothing that was not asked for."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


@pytest.mark.parametrize("name", ["procrastinate", "taskiq"])
def test_a_missing_extra_is_named(name: str) -> None:
    code = textwrap.dedent(
        f"""
        import sys
        sys.modules[{name!r}] = None
        import aioftrackjobs.integrations
        assert not any(sys.modules.get(each) for each in ("procrastinate", "taskiq"))
        try:
            import aioftrackjobs.integrations.{name}
        except aioftrackjobs.MissingExtraError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"aioftrackjobs[{name}]" in done.stdout
