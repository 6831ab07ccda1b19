"""nginx, which the benchmarks use as a store of files, and for TLS in front of a stub."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Seconds that nginx may take to start.
_STARTING = 10.0

_CONFIGURATION = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/incoming;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    {maps}
    server {{
        listen 127.0.0.1:{port} {tls};
        {certificate}
        {locations}
    }}
}}
"""

#: A stub that responds to all requests, with connections that stay open.
_STUB = "upstream stub {{ server {address}; keepalive 64; keepalive_requests 1000000; }}"
_PROXY = """
location / {
    proxy_pass http://stub;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
}
"""


def require_nginx() -> str:
    """Return the path of nginx; end the program with a message if there is none."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        sys.exit("This benchmark needs nginx (Debian: apt-get install nginx).")
    return found


@contextmanager
def running(
    folder: Path, port: int, *, tls: bool, locations: str, maps: str = ""
) -> Iterator[dict[str, str]]:
    """Run nginx on a port.

    Args:
        folder: Where it may write.
        port: A free port.
        tls: Whether it serves over TLS, with a certificate of an authority that is made for it.
        locations: Lines of its configuration, for the server.
        maps: The same, outside of the server.

    Returns:
        Variables for the measured programs: files with the authorities that they trust, which are
        those of every machine and the one that was made.
    """
    nginx = require_nginx()
    certificate = _make_certificate(folder) if tls else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            port=port,
            tls="ssl" if tls else "",
            certificate=certificate,
            locations=locations,
            maps=maps,
        )
    )
    command = [nginx, "-p", str(folder), "-e", str(folder / "error.log")]
    with subprocess.Popen([*command, "-c", str(configuration)]) as process:
        try:
            _await_port(port, process)
            trusted = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
            more = {"NODE_EXTRA_CA_CERTS": str(folder / "authority.pem")}
            authorities = str(folder / "authorities.pem")
            yield {**dict.fromkeys(trusted, authorities), **more} if tls else {}
        finally:
            process.terminate()


@contextmanager
def tls_before(address: str, folder: Path) -> Iterator[dict[str, str]]:
    """Serve what listens at *address* over TLS.

    Returns:
        Variables for the measured programs, with ``FTRACK_SERVER``.
    """
    port = free_port()
    maps = _STUB.format(address=address)
    with running(folder, port, tls=True, locations=_PROXY, maps=maps) as variables:
        yield {"FTRACK_SERVER": f"https://127.0.0.1:{port}", **variables}


def _make_certificate(folder: Path) -> str:
    """Make an authority and a certificate of it; return the lines of nginx's configuration."""
    import certifi
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    known = Path(certifi.where()).read_bytes()
    (folder / "authorities.pem").write_bytes(known + authority.cert_pem.bytes())
    server = authority.issue_cert("127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    path = folder / "server.pem"
    return f"ssl_certificate {path}; ssl_certificate_key {path};"


def free_port() -> int:
    """Return a port that no program listens on."""
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
