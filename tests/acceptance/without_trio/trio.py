"""Stands before trio in the path of programs, as most users do not have it.

httpcore imports it wherever it is installed, which takes a fifth of the time of a short program.
"""

raise ImportError("trio is hidden from this program")
