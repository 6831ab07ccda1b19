"""The README and the pages in docs/: examples run, and what they name exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import ssl
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import anyio
import pytest
import pytest_asyncio
from PIL import Image

import aioftrackjobs
import aioftrackjobs.pytest_plugin
from aioftrackjobs import AsyncSession, Job
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.errors import MissingExtraError
from aioftrackjobs.testing import Fault
from aioftrackjobs.testing import __all__ as testing_names

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "aioftrackjobs"
README = ROOT / "README.md"
BLOCK = re.compile(r"```.*?```", re.DOTALL)
#: By their path below docs/: pages of other folders have their folder in it.
PAGES = {
    "README.md": README,
    **{
        path.relative_to(ROOT / "docs").as_posix(): path
        for path in sorted((ROOT / "docs").glob("**/*.md"))
    },
}
#: Pages of the repository that the site does not have, and whose blocks are not run.
OTHERS = {name: ROOT / ".github" / name for name in ("CONTRIBUTING.md", "SECURITY.md")}
#: What looks like a path of the repository: types of content, and programs of an environment.
NO_PATHS = ("application/", "image/", "text/", "video/", ".venv/")
#: The first line of a block that is a whole test file, which pytest runs.
TEST_FILE = "import pytest"
#: The first line of a block that the reader writes into a file.
FILE = re.compile(r"# (\w+\.py)\n")


def path_of(page: str) -> Path:
    return PAGES.get(page) or OTHERS[page]


def text_of(page: str) -> str:
    return path_of(page).read_text(encoding="utf-8")


def spans(page: str) -> list[str]:
    """Return what *page* sets in code font, outside of its blocks."""
    prose = BLOCK.sub("", text_of(page))
    return re.findall(r"`([^`\n]+)`", prose)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def compiled(page: str, block: str) -> CodeType:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(block, page, "exec", flags=flags, dont_inherit=True)
    return code


async def test_the_first_example_runs_as_it_stands(
    server: ServerHandle, ftrack: dict[str, str]
) -> None:
    done = await anyio.run_process(
        [sys.executable, "-W", "error", "-c", blocks("README.md", "python")[0]],
        env={**os.environ, **ftrack},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()

    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        job = await session.query("Job").of(Job).one()
        await session.populate(job, "job_components.component.name")
    assert (job.status, job.description) == ("done", "Transcode sh010")
    assert [link["component"]["name"] for link in job["job_components"]] == ["report"]


@pytest_asyncio.fixture
async def names(session: AsyncSession, tmp_path: Path) -> dict[str, Any]:
    """What the examples of the pages use without defining it."""

    async def frames() -> AsyncIterator[int]:
        for frame in range(1001, 1004):
            yield frame

    async def work(_: object) -> None:
        """The work of the reader's program."""

    job = session.create(Job, {"user": await session.current_user(), "status": "running"})
    ended = [session.create(Job, {"status": status}) for status in ("failed", "done")]
    await session.commit()
    task = await session.query("select id from Task limit 1").first()
    shot = await session.query("select object_type_id, name from Shot").first()
    project = await session.query("Project").first()
    category = await session.query("NoteCategory").first()
    assert task is not None
    assert shot is not None
    number = await session.query('CustomAttributeType where name is "number"').one()
    attribute = {"key": "fstart", "label": "First", "entity_type": "task", "config": "{}"}
    more = {"object_type_id": shot["object_type_id"], "type": number}
    session.create("CustomAttributeConfiguration", {**attribute, **more})
    asset = session.create("Asset", {"name": "comp", "parent": shot})
    version = session.create("AssetVersion", {"asset": asset})
    await session.commit()
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    (tmp_path / "plates").mkdir()
    for frame in range(1001, 1004):
        (tmp_path / "plates" / f"sh010.{frame}.exr").write_bytes(b"pixels")
    for name in ("comp.mov", "sh010.mov"):
        (tmp_path / name).write_bytes(b"a film")
    Image.new("RGB", (64, 48)).save(tmp_path / "sh010.jpg")
    return {
        "AsyncSession": AsyncSession,
        "Job": Job,
        "animation": await session.query('Type where name is "Animation"').one(),
        "bad_frames": [1002],
        "category": category,
        "daemon": work,
        "frames": frames(),
        "job": job,
        "job_context": aioftrackjobs.job_context,
        "job_id": job.id,
        "path": tmp_path / "report.pdf",
        "project": project,
        "publish_id": ended[1].id,
        "render": work,
        "render_job": ended[0],
        "shot": shot,
        "shots": ["sh010", "sh020"],
        "ssl_context": ssl.create_default_context(),
        "supervisor": await session.query('User where username is "maya"').one(),
        "task_id": task["id"],
        "token": "abc",
        "untrusted": "maya",
        "version": version,
    }


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != "README.md" and blocks(page, "python")]
)
async def test_the_examples_of_a_page_run_in_their_order(
    page: str,
    names: dict[str, Any],
    session: AsyncSession,
    ftrack: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ftrack.items():
        monkeypatch.setenv(name, value)

    examples = [block for block in blocks(page, "python") if not block.startswith(TEST_FILE)]
    assert examples
    for block in examples:
        if file := FILE.match(block):
            await run_file(tmp_path / file[1], block)
            continue
        names["session"] = session
        result = eval(compiled(page, block), names)
        if inspect.iscoroutine(result):
            await result


async def run_file(path: Path, block: str) -> None:
    """Write a file as the reader does, and run it if it is a program or has tests."""
    await anyio.Path(path).write_text(block, encoding="utf-8")
    arguments = [path.name]
    if path.name.startswith("test_"):
        arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", path.name]
    elif "asyncio.run(" not in block:
        return
    done = await anyio.run_process([sys.executable, *arguments], cwd=path.parent, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def files_of(page: str) -> set[str]:
    """Return the names of the files that the reader of *page* writes."""
    return {file[1] for block in blocks(page, "python") if (file := FILE.match(block))}


def test_the_example_of_a_test_passes_under_both_plugins(all_runs: Any) -> None:
    (example,) = (each for each in blocks("pytest.md", "python") if each.startswith(TEST_FILE))
    files = {
        plugin: example.replace("mark.anyio", f"mark.{plugin}") for plugin in ("anyio", "asyncio")
    }

    run = all_runs.run(files)

    assert run.of("anyio") == ["passed"] * 2  # it has two event loops
    assert run.of("asyncio") == ["passed"]


def test_clients_that_are_passed_in_are_closed_by_their_own_blocks() -> None:
    """Each example enters its client before its session, as the page says."""
    clients = [each for each in blocks("clients.md", "python") if "client=client" in each]

    assert len(clients) == 2
    for each in clients:
        assert each.index("as client") < each.index("AsyncSession(client=client)")


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_every_test_that_is_named_exists(page: str) -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))

    for name, more in re.findall(r"`(?:tests/[\w/]*)?(test_\w+)(\.\.\.|\.py)?`", text_of(page)):
        if f"{name}{more}" in files_of(page):
            continue
        if more == ".py":
            assert list(ROOT.glob(f"tests/**/{name}.py")), name
        else:
            assert f"def {name}" + ("" if more else "(") in tests, name


def test_what_happens_is_proved_by_tests() -> None:
    table = text_of("jobs.md").partition("## What happens when")[2].partition("\n## ")[0]
    paragraphs = [each for each in table.split("\n\n") if each.startswith("**")]

    assert len(paragraphs) > 10
    for paragraph in paragraphs:
        assert re.search(r"Tests?:[^.]*`test_", paragraph), paragraph


def test_what_is_promised_about_security_is_proved_by_tests() -> None:
    promises = text_of("SECURITY.md").partition("## What is promised\n")[2].partition("\nA viol")[0]
    items = promises.strip().split("\n- ")

    assert len(items) > 5
    for item in items:
        assert re.search(r"Tests?: `test_", item), item


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    path = path_of(page)
    for target in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", text_of(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {anchor_of(heading) for heading in headings}, target


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub makes for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_every_path_that_is_named_exists(page: str) -> None:
    """From the root, from the package or, in the text about it, from the embedded server."""
    bases = [ROOT, PACKAGE, PACKAGE / "devserver"]
    for span in spans(page):
        if span in files_of(page):
            continue
        if re.fullmatch(r"\w+\.py", span):  # the folder is named beside it
            assert any(ROOT.glob(f"*/**/{span}")) or (ROOT / span).exists(), span
        elif re.fullmatch(r"[\w.-]+(/[\w.-]*)+", span) and not span.startswith(NO_PATHS):
            assert any((base / span).exists() for base in bases), span


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_every_module_and_attribute_that_is_named_exists(page: str) -> None:
    for span in spans(page):
        name = re.fullmatch(r"aioftrackjobs((?:\.\w+)+)(?:\(.*\))?", span)
        value: Any = aioftrackjobs
        for part in [] if name is None else name[1][1:].split("."):
            if inspect.ismodule(value) and not hasattr(value, part):
                try:
                    importlib.import_module(f"{value.__name__}.{part}")
                except MissingExtraError:
                    break  # an engine that is not installed here; it has a session of its own
            assert hasattr(value, part), span
            value = getattr(value, part)


@pytest.mark.parametrize("page", [page for page in [*PAGES, *OTHERS] if page != "protocol.md"])
def test_every_name_in_code_font_occurs_in_the_code(page: str) -> None:
    text = text_of(page)
    known = words_of_the_code() | set(re.findall(r"\w+", " ".join(BLOCK.findall(text))))

    for span in spans(page):
        names = [] if "/" in span else re.findall(r"[A-Za-z_]\w{3,}", span)
        # A part of a test's name stands for several; another test looks them up.
        assert {name for name in names if not name.startswith("test_")} <= known, span


@cache
def words_of_the_code() -> frozenset[str]:
    files = [*PACKAGE.glob("**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("*.toml")]
    code = " ".join(path.read_text(encoding="utf-8") for path in [*files, ROOT / "noxfile.py"])
    return frozenset(re.findall(r"\w+", code))


LAYERS = re.compile(r"^([a-z_]+(?: \| [a-z_]+)*)(?:  .*)?$", re.MULTILINE)


def layers_of(contract: str, prefix: str) -> list[set[str]]:
    """Return the layers that import-linter holds, without *prefix*."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["name"] == contract)
    return [set(layer.replace(prefix, "").split(" | ")) for layer in layers]


@pytest.mark.parametrize(
    ("heading", "contract"),
    [
        ("## 2. Layers", "Imports run down only"),
        ("## 7. The embedded server", "Imports inside the embedded server run down only"),
    ],
)
def test_the_layers_that_are_drawn_are_those_that_are_held(heading: str, contract: str) -> None:
    section = text_of("architecture.md").partition(heading)[2]
    block = section.partition("```text\n")[2].partition("```")[0]

    drawn = [set(line.split(" | ")) for line in LAYERS.findall(block)]

    assert drawn == layers_of(contract, "aioftrackjobs.")


def test_every_section_of_the_protocol_that_the_code_cites_exists() -> None:
    sections = set(re.findall(r"^##+ ([\d.]+\d|\d+)", text_of("protocol.md"), re.MULTILINE))
    files = [
        path for folder in ("aioftrackjobs", "tests") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)

    cited: set[str] = set()
    for text in re.findall(r"protocol\.md,\s+(?:sections? )?([\d., to\sand]+)", code):
        cited |= set(re.findall(r"\d+(?:\.\d+)*", text))

    assert len(cited) > 20
    assert cited <= sections


def test_every_fault_and_fixture_is_named() -> None:
    page = text_of("pytest.md")
    faults = {
        name
        for name in testing_names
        if isinstance(kind := getattr(aioftrackjobs.testing, name), type)
        and issubclass(kind, Fault)
        and kind is not Fault
    }
    fixtures = set(re.findall(r"^\| `(ftrack_\w+)` \|", page, re.MULTILINE))

    assert len(faults) > 10
    assert faults - {"LosePower"} <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert fixtures == {
        name for name in vars(aioftrackjobs.pytest_plugin) if name.startswith("ftrack_")
    }


def test_ci_calls_the_very_test_command_of_the_readme() -> None:
    commands = [each.strip() for each in blocks("README.md", "sh") if each.startswith("python3 ")]

    assert len(commands) == 2
    script = ROOT / ".ci" / "run"
    assert commands[1] in script.read_text().splitlines()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_the_readme_can_be_read_at_one_sitting() -> None:
    assert len(text_of("README.md").splitlines()) <= 150
