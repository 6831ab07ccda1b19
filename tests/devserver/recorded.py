"""The schemas of a real server, beside the checkout where they are present."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[3] / "shared" / "schemas" / "all.json"
DOCUMENTS: list[dict[str, Any]] = json.loads(PATH.read_text()) if PATH.exists() else []
