"""Locations on disks: files move between them and the server, beside the official client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from ftrack_api.accessor.disk import DiskAccessor
from ftrack_api.structure.id import IdStructure
from ftrack_api.structure.standard import StandardStructure

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    ComponentInLocationError,
    ComponentNotInLocationError,
    ContainerComponent,
    Entity,
    EntityError,
    FileChangedError,
    FileComponent,
    Location,
    MissingFileError,
    SequenceComponent,
    ServerError,
    TransferError,
    UnsupportedLocationError,
)
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.transfers import copying

from .conftest import FaultProxy, Official
from .settings import connected
from .waiting import until

STRUCTURES = {"id": IdStructure, "version": StandardStructure}


@pytest.fixture
async def storage(session: AsyncSession) -> Location:
    return await session.query('Location where name is "ftrack.server"').of(Location).one()


@pytest.fixture
async def disk(session: AsyncSession, tmp_path: Path) -> Location:
    """A location of a studio, as IdStructure arranges it."""
    location = await session.ensure(Location, {"name": "studio.disk"})
    location.use_folder(tmp_path / "disk")
    return location


@pytest.fixture
async def version(session: AsyncSession) -> Entity:
    shot = await session.query("select id, name from Shot").first()
    kind = await session.query("AssetType").first()
    assert shot is not None
    assert kind is not None
    asset = session.create("Asset", {"name": "Plate A", "parent": shot, "type": kind})
    made = session.create("AssetVersion", {"asset": asset, "version": 3})
    await session.commit()
    return made


@pytest.fixture
async def plate(session: AsyncSession, version: Entity) -> FileComponent:
    return await session.create_component(b"pixels", name="Beauty pass.exr", version=version)


@pytest.fixture
async def frames(session: AsyncSession, version: Entity, tmp_path: Path) -> SequenceComponent:
    for frame in (1001, 1002, 1003):
        (tmp_path / f"sh010.{frame}.exr").write_bytes(b"x" * (frame - 1000))
    return await session.create_sequence(str(tmp_path / "sh010.%04d.exr"), version=version)


def files_in(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """The block leaves the files of *folder* as they were."""
    before = files_in(folder)
    yield
    assert files_in(folder) == before


# What one client writes, the other reads


@pytest.mark.parametrize("structure", ["id", "version"])
async def test_the_official_client_finds_what_was_added_where_it_would_put_it(
    session: AsyncSession,
    official: Official,
    storage: Location,
    plate: FileComponent,
    frames: SequenceComponent,
    tmp_path: Path,
    structure: Any,
) -> None:
    folder = tmp_path / "disk"
    box = session.create(ContainerComponent, {"name": "Box", "version_id": plate["version_id"]})
    await session.commit()
    member = await session.create_component(b"a", {"container": box}, name="a.txt")
    disk = await session.ensure(Location, {"name": "studio.disk"})
    disk.use_folder(folder, structure=structure)

    await disk.add_components([plate, frames, box], storage)

    def read(theirs: Any) -> list[tuple[str, bytes | None]]:
        location = theirs.query('Location where name is "studio.disk"').one()
        location.accessor = DiskAccessor(prefix=str(folder))
        location.structure = STRUCTURES[structure]()
        found = []
        for key in (plate.id, frames.id, box.id, member.id):
            component = theirs.get("Component", key)
            identifier = location.get_resource_identifier(component)
            assert identifier == location.structure.get_resource_identifier(component)
            assert location.get_component_availability(component) == 100.0
            path = Path(location.get_filesystem_path(component))
            found.append((identifier, path.read_bytes() if path.is_file() else None))
        return found

    there = await official.run(read)
    assert [content for _, content in there] == [b"pixels", None, None, b"a"]
    assert await disk.get_resource_identifier(frames) == there[1][0]
    assert (await disk.get_filesystem_path(plate)).read_bytes() == b"pixels"
    (second,) = folder.rglob("*1002.exr")
    assert second.stat().st_size == 2


async def test_what_the_official_client_adds_moves_to_the_server(
    session: AsyncSession,
    official: Official,
    disk: Location,
    storage: Location,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    for frame in (7, 8):
        (tmp_path / f"sh020.{frame:04}.exr").write_bytes(bytes(frame))

    def write(theirs: Any) -> str:
        location = theirs.query('Location where name is "studio.disk"').one()
        location.accessor = DiskAccessor(prefix=str(folder))
        location.structure = IdStructure()
        pattern = str(tmp_path / "sh020.%04d.exr [7-8]")
        return str(theirs.create_component(pattern, location=location)["id"])

    key = await official.run(write)
    made = await session.query("SequenceComponent where id is {id}", id=key).one()
    assert isinstance(made, SequenceComponent)
    assert await disk.get_component_availability(made) == 100.0
    assert await storage.get_component_availability(made) == 0.0

    await storage.add_component(made, disk)

    def read(theirs: Any) -> tuple[float, list[bytes]]:
        location = theirs.query('Location where name is "ftrack.server"').one()
        component = theirs.get("SequenceComponent", key)
        opened = [
            location.accessor.open(location.get_resource_identifier(each), "rb")
            for each in sorted(component["members"], key=lambda each: str(each["name"]))
        ]
        contents = [each.read() for each in opened]
        for each in opened:
            each.close()
        return location.get_component_availability(component), contents

    assert await official.run(read) == (100.0, [bytes(7), bytes(8)])

    await disk.remove_component(made)

    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert await disk.get_component_availability(made) == 0.0
    assert await storage.get_component_availability(made) == 100.0


async def test_a_file_moves_from_disk_to_disk_and_from_a_path(
    session: AsyncSession, disk: Location, tmp_path: Path
) -> None:
    (tmp_path / "plate.exr").write_bytes(b"big" * 1_000_000)
    plate = session.create(FileComponent, {"name": "plate", "file_type": ".exr"})
    await session.commit()
    backup = await session.ensure(Location, {"name": "studio.backup"})
    backup.use_folder(
        tmp_path / "backup", lambda place: f"2026/{place.component['name']}{place.file_type}"
    )

    await disk.add_component(plate, tmp_path / "plate.exr")
    await backup.add_component(plate, disk)

    path = await backup.get_filesystem_path(plate)
    assert path == tmp_path / "backup" / "2026" / "plate.exr"
    assert path.read_bytes() == b"big" * 1_000_000
    assert files_in(tmp_path / "backup") == ["2026", "2026/plate.exr"]


async def test_members_without_recursion_stay_where_they_are(
    disk: Location, storage: Location, frames: SequenceComponent, tmp_path: Path
) -> None:
    await disk.add_component(frames, storage, recursive=False)

    assert await disk.get_component_availability(frames) == 0.0
    assert [path for path in (tmp_path / "disk").rglob("*") if path.is_file()] == []
    await disk.remove_component(frames, recursive=False)
    with pytest.raises(ComponentNotInLocationError):
        await disk.get_resource_identifier(frames)


# Refusals


async def test_errors_say_what_is_wrong_and_nothing_is_done(
    session: AsyncSession,
    disk: Location,
    storage: Location,
    plate: FileComponent,
    frames: SequenceComponent,
    tmp_path: Path,
) -> None:
    elsewhere = await session.ensure(Location, {"name": "elsewhere"})
    with pytest.raises(UnsupportedLocationError, match="use_folder"):
        await elsewhere.add_component(plate, storage)
    with pytest.raises(UnsupportedLocationError, match="use_folder"):
        await disk.add_component(plate, elsewhere)
    with pytest.raises(UnsupportedLocationError, match=r"session\.download"):
        await storage.get_filesystem_path(plate)
    with pytest.raises(UnsupportedLocationError):
        storage.use_folder(tmp_path)
    with pytest.raises(ArgumentError, match="structure"):
        disk.use_folder(tmp_path, "nonsense")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="one file"):
        await disk.add_component(frames, tmp_path / "sh010.1001.exr")
    with pytest.raises(ArgumentError, match="entity"):
        await disk.add_component("plate", storage)  # type: ignore[arg-type]
    with pytest.raises(EntityError, match="no session"):
        await Location(name="detached").add_component(plate, storage)
    pending = session.create(FileComponent, {"name": "pending"})
    with pytest.raises(EntityError, match="commit it first"):
        await disk.add_component(pending, storage)
    session.rollback()
    with pytest.raises(ComponentNotInLocationError) as caught:
        await disk.remove_component(plate)
    assert caught.value.component_ids == (plate.id,)
    elsewhere.use_folder(tmp_path / "elsewhere")
    with pytest.raises(ComponentNotInLocationError):
        await disk.add_component(plate, elsewhere)

    await disk.add_component(plate, storage)
    with nothing_left(tmp_path), pytest.raises(ComponentInLocationError) as again:
        await disk.add_components([frames, plate], storage)
    assert again.value.component_ids == (plate.id,)

    (await disk.get_filesystem_path(plate)).unlink()
    with pytest.raises(MissingFileError):
        await elsewhere.add_component(plate, disk)
    await disk.remove_component(plate)  # although its file is gone


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", ""])
async def test_no_structure_and_no_registration_leads_out_of_the_folder(
    session: AsyncSession, disk: Location, storage: Location, plate: FileComponent, path: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    disk.use_folder(tmp_path / "disk", lambda _: path)
    with nothing_left(tmp_path), pytest.raises(ArgumentError, match="structure"):
        await disk.add_component(plate, storage)

    values = {"component": plate, "location": disk, "resource_identifier": str(path)}
    session.create("ComponentLocation", values)
    await session.commit()
    with pytest.raises(TransferError, match="not below"):
        await disk.get_filesystem_path(plate)
    with pytest.raises(TransferError, match="not below"):
        await disk.remove_component(plate)


async def test_a_file_that_is_there_is_never_overwritten(
    session: AsyncSession, disk: Location, storage: Location, plate: FileComponent, tmp_path: Path
) -> None:
    disk.use_folder(tmp_path / "disk", lambda place: place.component["name"])
    path = tmp_path / "disk" / plate.name
    path.parent.mkdir()
    path.write_bytes(b"precious")

    with nothing_left(tmp_path), pytest.raises(TransferError, match="exists already"):
        await disk.add_component(plate, storage)

    assert path.read_bytes() == b"precious"
    assert await disk.get_component_availability(plate) == 0.0


async def test_a_file_of_another_size_is_not_added(
    session: AsyncSession, disk: Location, plate: FileComponent, tmp_path: Path
) -> None:
    (tmp_path / "other.exr").write_bytes(b"too long")

    with nothing_left(tmp_path), pytest.raises(TransferError, match="8 bytes"):
        await disk.add_component(plate, tmp_path / "other.exr")


# Nothing stays half done


async def test_a_missing_member_takes_all_files_back(
    disk: Location,
    storage: Location,
    frames: SequenceComponent,
    server: ServerHandle,
    session: AsyncSession,
    tmp_path: Path,
) -> None:
    await disk.add_component(frames, storage)
    backup = await session.ensure(Location, {"name": "backup"})
    backup.use_folder(tmp_path / "backup")
    next((tmp_path / "disk").rglob("*1002.exr")).unlink()

    with nothing_left(tmp_path), pytest.raises(MissingFileError, match="1002"):
        await backup.add_component(frames, disk)

    assert await backup.get_component_availability(frames) == 0.0


async def test_a_refused_registration_takes_the_files_back(
    session: AsyncSession,
    server: ServerHandle,
    proxy: FaultProxy,
    plate: FileComponent,
    tmp_path: Path,
) -> None:
    async with connected(server, proxy.url) as other:
        disk = await other.ensure(Location, {"name": "studio.disk"})
        storage = await other.query('Location where name is "ftrack.server"').of(Location).one()
        disk.use_folder(tmp_path / "disk")
        found = await other.query("FileComponent where id is {id}", id=plate.id).one()
        (tmp_path / "disk").mkdir()
        refusal = b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json"
        proxy.plan(b'"create"', times=10, response=refusal)
        assert isinstance(found, FileComponent)

        with nothing_left(tmp_path), pytest.raises(ServerError):
            await disk.add_component(found, storage)


@pytest.fixture
def slow_copies(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies that do not return; the paths that they have written."""
    begun: list[Path] = []
    copy = copying.copy_file

    async def slowly(
        source: Path, target: Path, expected: int | None, check: Callable[[], object]
    ) -> None:
        await copy(source, target, expected, check)
        begun.append(target)
        while True:
            await anyio.sleep(0.01)
            check()

    monkeypatch.setattr("aioftrackjobs.transfers.locations.copy_file", slowly)
    return begun


@pytest.mark.every_loop
async def test_a_cancelled_call_takes_all_files_back(
    session: AsyncSession,
    disk: Location,
    tmp_path: Path,
    slow_copies: list[Path],
) -> None:
    (tmp_path / "plate.exr").write_bytes(b"pixels")
    plate = session.create(FileComponent, {"name": "plate", "file_type": ".exr"})
    await session.commit()

    with nothing_left(tmp_path):
        async with anyio.create_task_group() as group:
            group.start_soon(disk.add_component, plate, tmp_path / "plate.exr")
            await until(lambda: slow_copies)
            assert slow_copies[0].exists()
            group.cancel_scope.cancel()
        await until(lambda: not (tmp_path / "disk").exists())

    assert await disk.get_component_availability(plate) == 0.0


async def test_a_file_that_changes_while_it_is_copied_is_refused(
    session: AsyncSession, disk: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "plate.exr"
    source.write_bytes(b"pixels")
    plate = session.create(FileComponent, {"name": "plate", "file_type": ".exr"})
    await session.commit()
    found = os.fstat

    def touching(descriptor: int) -> os.stat_result:
        facts = found(descriptor)
        os.utime(source, ns=(1, facts.st_mtime_ns + 1))
        return facts

    monkeypatch.setattr("aioftrackjobs.transfers.copying.os.fstat", touching)
    with nothing_left(tmp_path), pytest.raises(FileChangedError):
        await disk.add_component(plate, source)
