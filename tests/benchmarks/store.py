"""The server of the benchmark of transfers: nginx stores the files, the stub responds to API calls.

nginx serves over TLS, with a certificate of an authority that is made for the run, or over plain
HTTP. It writes uploads to the folder of the run; the download is a file of that folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nginx import free_port, running

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

_MAPS = "map $arg_id $checksum {{ default ''; {checksums} }}"
_LOCATIONS = """
location = /api {{ proxy_pass {stub}; }}
location = /component/remove {{ return 200; }}
location = /component/get {{
    alias {folder}/files/$arg_id;
    add_header Content-MD5 $checksum;
}}
location /upload {{
    root {folder}/kept;
    dav_methods PUT;
    add_header ETag '"kept"';
}}
"""


@contextmanager
def serving(folder: Path, checksums: Mapping[str, str], *, tls: bool) -> Iterator[dict[str, str]]:
    """Run nginx and the stub.

    Args:
        folder: Holds the files to download, by their ids, in ``files``; uploads are written to it.
        checksums: Values of ``Content-MD5``, for the ids whose download has one.
        tls: Whether nginx serves over TLS.

    Returns:
        Variables for the measured programs: the server's address, user and key, and the file of
        the authority that they have to trust.
    """
    port = free_port()
    url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    (folder / "kept").mkdir()
    with ExitStack() as stack:
        stub = stack.enter_context(
            subprocess.Popen(
                [sys.executable, str(HERE / "stub.py"), "0", url],
                env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(ROOT)))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(stub.stdin.close)  # which ends the stub
        facts = json.loads(stub.stdout.readline())
        variables = stack.enter_context(
            running(
                folder,
                port,
                tls=tls,
                locations=_LOCATIONS.format(folder=folder, stub=facts["listens"]),
                maps=_MAPS.format(
                    checksums=" ".join(f'{name} "{value}";' for name, value in checksums.items())
                ),
            )
        )
        yield {
            "FTRACK_SERVER": url,
            "FTRACK_API_KEY": facts["key"],
            "FTRACK_API_USER": facts["user"],
            **variables,
        }
