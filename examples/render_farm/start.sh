#!/usr/bin/env bash
# Starts PostgreSQL, an ftrack server with a jobs page, and two workers in a temporary folder, without
# Docker, and sends them the shots: ./start.sh sh010 sh020 sh030
set -euo pipefail
cd "$(dirname "$0")"

PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)"
command -v initdb >/dev/null || { echo "PostgreSQL is not installed (apt install postgresql)" >&2; exit 1; }
folder=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then  # PostgreSQL refuses root
    chown postgres "$folder"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

port=$(free_port)
(cd "$folder" && "${as[@]}" initdb -D data -U farm -A trust -E UTF8 >/dev/null)
(cd "$folder" && exec "${as[@]}" postgres -D data -p "$port" -h 127.0.0.1 -k "" >log 2>&1) &
export FARM_DATABASE="host=127.0.0.1 port=$port user=farm dbname=postgres"

export FTRACK_SERVER="http://127.0.0.1:$(free_port)" FTRACK_API_USER=developer FTRACK_API_KEY=farm-demo-key
aioftrackjobs serve --port "${FTRACK_SERVER##*:}" --api-key "$FTRACK_API_KEY" >"$folder/serve.log" 2>&1 &
for address in "$port" "${FTRACK_SERVER##*:}"; do
    until (exec 3<>"/dev/tcp/127.0.0.1/$address") 2>/dev/null; do sleep 0.2; done
done
echo "The jobs page is $FTRACK_SERVER (API key: $FTRACK_API_KEY)"

PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" procrastinate --app=shots.app schema --apply >/dev/null
for _ in 1 2; do python3 worker.py & done
python3 producer.py "$@"
