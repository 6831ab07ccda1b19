"""``python -m aioftrackjobs``, for use without the installed command."""

from aioftrackjobs.cli import main

if __name__ == "__main__":
    main()
