"""Searches everything that is logged or raised for a secret."""

from __future__ import annotations

import logging
import traceback
from typing import Self

#: A key that is found wherever it occurs, because nothing else contains it.
KEY = "VERY-SECRET-KEY-9876543210"


class SecretWatch(logging.Handler):
    """While it is entered, every log record of the process is searched, from DEBUG on.

    Attributes:
        records: How many were searched.
        exceptions: How many exceptions were.
        leaks: Where the secret was found, without it.
    """

    def __init__(self, secret: str) -> None:
        super().__init__(logging.DEBUG)
        self._secret = secret
        self._level = logging.NOTSET
        self.records = 0
        self.exceptions = 0
        self.leaks: list[str] = []

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self)
        logging.captureWarnings(True)
        return self

    def __exit__(self, *_: object) -> None:
        logging.captureWarnings(False)
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        """Search a log record, with its arguments and its exception."""
        self.records += 1
        self.search(f"a log record of {record.name}", self.format(record), repr(record.args))

    def see(self, error: BaseException) -> None:
        """Search an exception, with its causes, groups and attributes."""
        self.exceptions += 1
        text = "".join(traceback.format_exception(error))
        self.search(f"a {type(error).__name__}", text, repr(error), repr(vars(error)))

    def search(self, where: str, *texts: str) -> None:
        """Search *texts* that come from *where*."""
        for text in texts:
            if self._secret in text:
                shown = text.replace(self._secret, "<THE KEY>")
                self.leaks.append(f"the key is in {where}: {shown[-500:]}")
