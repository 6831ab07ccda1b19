"""The project's checks: CI runs these sessions and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "virtualenv"

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
CODE = ["aioftrackjobs", "tests", "examples", "docs", "noxfile.py"]


def install(session: nox.Session, group: str) -> None:
    """Install the package, not the checkout, and a dependency group.

    The group is read here: `pip install --group` needs a newer pip than Python 3.11 brings.
    """
    project = nox.project.load_toml("pyproject.toml")
    session.install(".[all]", *nox.project.dependency_groups(project, group))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with the Python that runs nox; arguments go to pytest."""
    install(session, "tests")
    run_tests(session)


@nox.session(python=PYTHONS)
def versions(session: nox.Session) -> None:
    """Run the tests with each supported Python that is installed."""
    install(session, "tests")
    run_tests(session)


def run_tests(session: nox.Session, *options: str) -> None:
    """Run pytest from its script: `python -m pytest` would import the checkout.

    Two processes for each core, because the tests wait for half of their time. A test that hangs
    costs its process, after a minute; another one takes over the rest.
    """
    workers = ("-n", str(min(2 * (os.cpu_count() or 1), 8)), "--dist=worksteal")
    # Written bytecode is what makes the many child processes of the tests start fast.
    env = {"PYTHONDONTWRITEBYTECODE": ""}
    # The services of engines have a session of their own.
    session.run("pytest", *workers, "--ignore=tests/engines", *options, *session.posargs, env=env)


@nox.session
def browser(session: nox.Session) -> None:
    """Test the pages of the server in Chromium, if there is one; arguments go to pytest."""
    install(session, "browser")
    session.run("pytest", "-n", "2", "tests/browser", *session.posargs)


@nox.session
def pictures(session: nox.Session) -> None:
    """Make the pictures of the documentation anew: pages, terminals, plots of benchmarks."""
    install(session, "browser")
    taken = ("test_looks.py", "test_pictures.py", "test_demo.py")
    files = [str(path) for path in Path("tests").rglob("test_*.py") if path.name in taken]
    session.run("pytest", "--pictures", "-k", "picture", *files)
    session.run(
        "python", "tests/benchmarks/growth.py", "--quick", "--plot=docs/pictures/growth.svg"
    )
    floors = ("--parts=floors", "--latencies=0", "--quick", "--plot=docs/pictures/floors.svg")
    session.run("python", "tests/benchmarks/farm.py", *floors)


@nox.session
def engines(session: nox.Session) -> None:
    """Test engines on PostgreSQL and Redis, where they are installed; arguments go to pytest.

    With `-m smoke`, one test of each engine: a worker is killed, and its tasks are run again.
    """
    install(session, "engines")
    session.run("pytest", "-n", "2", "--dist=loadfile", "tests/engines", *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """Run all integration tests on each HTTP client and event loop, not only what needs them."""
    install(session, "tests")
    run_tests(session, "--clients=all", "tests/integration")


@nox.session
def long(session: nox.Session) -> None:
    """Try much more where chance picks what is tried: examples, malformed requests, kills."""
    install(session, "tests")
    run_tests(session, "--hypothesis-profile=long", "--timeout=1800", "-m", "long")
    session.run("python", "tests/benchmarks/soak.py")
    session.run("python", "tests/benchmarks/attacks.py")


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests under coverage, and report what they do not reach."""
    install(session, "tests")
    session.run("coverage", "erase")
    session.run(
        *("coverage", "run", str(Path(session.bin, "pytest")), "-n", str(os.cpu_count() or 1)),
        *("--ignore=tests/engines", "--timeout=300", *session.posargs),
        env={"PYTHONDONTWRITEBYTECODE": ""},
    )
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style and the direction of imports."""
    install(session, "lint")
    session.run("ruff", "format", "--check", *CODE)
    session.run("ruff", "check", *CODE)
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy in strict mode, pyright on what users write."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")


@nox.session
def typing(session: nox.Session) -> None:
    """Check that all public names have types, and the module of `aioftrackjobs models`."""
    install(session, "types")
    session.run("python", "tests/typing/check_models.py")
    session.run("python", "tests/typing/completeness.py")


@nox.session
def api(session: nox.Session) -> None:
    """List what would break programs of the last version, or of the revision that is named."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "api"))
    session.run("python", "tests/typing/api_changes.py", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build the distributions, and check their metadata and what is in them."""
    project = nox.project.load_toml("pyproject.toml")
    session.install(*nox.project.dependency_groups(project, "package"))
    built = Path(session.create_tmp())
    for old in built.glob("aioftrackjobs-*"):
        old.unlink()
    session.run("validate-pyproject", "pyproject.toml")
    session.run("python", "-m", "build", "--outdir", str(built), ".")
    files = sorted(map(str, built.glob("aioftrackjobs-*")))
    session.run("twine", "check", "--strict", *files)
    session.run("check-wheel-contents", *(file for file in files if file.endswith(".whl")))
    session.run("python", "tests/packaging/check_wheel.py", str(built))


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the unit tests with the lowest versions that the package and its tests allow."""
    project = nox.project.load_toml("pyproject.toml")
    group = nox.project.dependency_groups(project, "lowest")
    session.install("uv")
    session.run("uv", "pip", "install", "--resolution=lowest-direct", ".[all]", *group)
    session.run("pytest", "-n", "2", "tests/unit", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; a warning is an error. Arguments go to Sphinx."""
    install(session, "docs")
    arguments = ("-W", "--keep-going", "-q", "-b", "html", *session.posargs)
    session.run("sphinx-build", *arguments, "docs", "docs/_build")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo from an installed package."""
    session.install(".[all]")
    session.run("aioftrackjobs", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the official client; arguments go to the benchmark."""
    install(session, "tests")
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


@nox.session
def farm(session: nox.Session) -> None:
    """Measure a farm's commits against all peers; arguments go to the benchmark.

    With nothing beyond what it needs: httpx imports rich, and httpcore trio, where they are.
    """
    project = nox.project.load_toml("pyproject.toml")
    session.install(".[server]", *nox.project.dependency_groups(project, "peers"))
    session.run("python", "tests/benchmarks/farm.py", *session.posargs)
