"""``python -m aioftrackjobs``, where no entry point is installed."""

from aioftrackjobs.cli import main

if __name__ == "__main__":
    main()
