"""Folders that several threads make at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioftrackjobs.errors import TransferError
from aioftrackjobs.transfers.copying import make_folder


def test_folders_that_two_threads_make_at_once_are_all_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo: list[Callable[[], object]] = []
    is_made, goes_on = threading.Event(), threading.Event()
    mkdir = Path.mkdir

    def slow_mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        mkdir(self, *args, **kwargs)
        if threading.current_thread() is first:
            is_made.set()
            assert goes_on.wait(20)

    monkeypatch.setattr(Path, "mkdir", slow_mkdir)
    first = threading.Thread(target=make_folder, args=(tmp_path / "a" / "b", undo))
    first.start()
    assert is_made.wait(20)
    make_folder(tmp_path / "a" / "b" / "c", undo)
    goes_on.set()
    first.join()

    assert (tmp_path / "a" / "b" / "c").is_dir()
    for each in reversed(undo):
        each()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    undo: list[Callable[[], object]] = []
    with pytest.raises(TransferError, match="cannot be made"):
        make_folder(tmp_path / "a", undo)
    assert undo == []
