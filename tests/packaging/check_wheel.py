"""Checks that the wheel has all files of the package: `python check_wheel.py FOLDER`.

The program is run by `nox -s package`, in the checkout that the wheel was built from.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]


def main(folder: str) -> str | None:
    """Return what is wrong with the only wheel in *folder*, or None."""
    (wheel,) = Path(folder).glob("*.whl")
    listed = subprocess.run(
        ["git", "ls-files", "aioftrackjobs"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    expected = set(listed.stdout.split())
    with ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    missing, unknown = sorted(expected - names), sorted(names - expected)
    if missing or unknown:
        return f"{wheel.name} lacks {missing} and has {unknown}, which git does not know."
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
