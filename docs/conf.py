"""Builds the documentation: `nox -s docs`."""

from __future__ import annotations

from importlib.metadata import version as version_of

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from typer.main import get_command
from typer.testing import CliRunner

# Imported here, because autodoc would import them as type checkers see them.
import aioftrackjobs.actions
import aioftrackjobs.blocking
import aioftrackjobs.devserver
import aioftrackjobs.errors
import aioftrackjobs.events
import aioftrackjobs.testing  # noqa: F401

project = "aioftrackjobs"
author = "aioftrackjobs contributors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name
release = version = version_of("aioftrackjobs")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build"]
nitpicky = False

html_theme = "furo"
html_title = f"aioftrackjobs {release}"
html_static_path: list[str] = []
html_theme_options = {
    "source_repository": "https://github.com/aioftrackjobs/aioftrackjobs",
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the signature has them
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_custom_sections = [("Source", "notes_style")]
napoleon_use_ivar = True

intersphinx_mapping: dict[str, tuple[str, None]] = {}


class CommandHelp(Directive):
    """Shows the help of all commands, as a terminal of 92 columns does."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each command."""
        from aioftrackjobs.cli.commands import app

        sections: list[nodes.Node] = []
        for name in sorted(get_command(app).commands):
            text = CliRunner().invoke(app, [name, "--help"], env=TERMINAL).output
            section = nodes.section(ids=[f"command-{name}"])
            section += nodes.title(text=name)
            section += nodes.literal_block(text.strip("\n"), text.strip("\n"), language="text")
            sections.append(section)
        return sections


TERMINAL = {"COLUMNS": "92", "NO_COLOR": "1", "TERM": "dumb"}


def setup(app: Sphinx) -> None:
    """Add the directive of the page about the command line."""
    app.add_directive("command-help", CommandHelp)
