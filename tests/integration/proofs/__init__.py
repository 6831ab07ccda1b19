"""Proofs that nothing is lost and nothing is stuck, of any size: small in CI, in full as a script.

``tests/integration/test_proofs.py`` runs them in seconds, ``tests/benchmarks/storms.py`` in full.
"""

from .cancelled import prove_cancellations
from .faulty import prove_faults
from .killed import prove_kills
from .outcome import Outcome

__all__ = ["Outcome", "prove_cancellations", "prove_faults", "prove_kills"]
