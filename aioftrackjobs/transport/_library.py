"""The HTTP library of the client that a session opens for itself.

It is httpx2 where that is installed, else httpx, which is always there. No other module decides
this, so that objects of the two never meet; whoever passes a client of their own has chosen one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx  # httpx2 has the same classes, with the same arguments
else:
    try:
        import httpx2 as httpx
    except ImportError:  # also if it cannot be loaded, for example on an older Python
        import httpx

__all__ = ["httpx"]
