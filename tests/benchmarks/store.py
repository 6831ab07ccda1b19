"""The server of the benchmark of transfers: nginx stores the files, the stub responds to API calls.

nginx serves over TLS, with a certificate of an authority that is made for the run, or over plain
HTTP. It writes uploads to the folder of the run; the download is a file of that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

#: Seconds that nginx may take to start.
_STARTING = 10.0

_CONFIGURATION = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {folder}/incoming;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    map $arg_id $checksum {{ default ''; {checksums} }}
    server {{
        listen 127.0.0.1:{port} {tls};
        {certificate}
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
    }}
}}
"""


def require_nginx() -> str:
    """Return the path of nginx; end the program with a message if there is none."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        sys.exit("This benchmark needs nginx as the store (Debian: apt-get install nginx).")
    return found


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
    nginx = require_nginx()
    port = _free_port()
    url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    (folder / "kept").mkdir()
    certificate = _make_certificate(folder) if tls else ""
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
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                port=port,
                tls="ssl" if tls else "",
                certificate=certificate,
                checksums=" ".join(f'{name} "{value}";' for name, value in checksums.items()),
                stub=facts["listens"],
            )
        )
        command = [nginx, "-p", str(folder), "-e", str(folder / "error.log")]
        process = stack.enter_context(subprocess.Popen([*command, "-c", str(configuration)]))
        stack.callback(process.terminate)
        _await_port(port, process)
        authority = str(folder / "authority.pem")
        trusted = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if tls else ()
        yield {
            "FTRACK_SERVER": url,
            "FTRACK_API_KEY": facts["key"],
            "FTRACK_API_USER": facts["user"],
            **dict.fromkeys(trusted, authority),
        }


def _make_certificate(folder: Path) -> str:
    """Make an authority and a certificate of it; return the lines of nginx's configuration."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    server = authority.issue_cert("127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    path = folder / "server.pem"
    return f"ssl_certificate {path}; ssl_certificate_key {path};"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until nginx listens; end the program if it does not."""
    end = time.monotonic() + _STARTING
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    sys.exit("nginx does not start; its messages are above.")
