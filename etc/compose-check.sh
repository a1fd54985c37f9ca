#!/usr/bin/env bash
# docker-compose.yml against a real engine: three containers become ready and healthy, a transfer sent to
# one is read from another, a killed leader is replaced and comes back, a stopped cluster keeps its chain.
#
# Usage: compose-check.sh. Needs target/release/blockraft (CARGO_TARGET_DIR is honoured), root, and an
# engine: DOCKER_HOST if set, or dockerd, which it installs from Debian where it may and runs in a network
# namespace of its own. Where no engine can be started it says so and succeeds. The image holds the
# binary that was tested, with the few shared libraries it names, instead of a second, static build.
set -euo pipefail
cd "$(dirname "$0")/.."

binary="${CARGO_TARGET_DIR:-target}/release/blockraft"
work="$(mktemp -d "${TMPDIR:-/tmp}/blockraft-compose-XXXXXX")"
namespace="blockraft-$$"
project="blockraftcheck$$"
daemon=""
inside=()

skip() {
    printf '\n**** container check skipped: %s ****\n\n' "$1" >&2
    exit 0
}
fail() {
    printf 'compose-check: FAILED: %s\n' "$1" >&2
    compose ps >&2 2>/dev/null || true
    compose logs --tail=30 >&2 2>/dev/null || true
    exit 1
}
compose() { "${inside[@]}" docker-compose -p "$project" -f docker-compose.yml "$@"; }
engine() { "${inside[@]}" docker "$@"; }
finish() {
    if [ -n "$daemon" ] || [ -n "${DOCKER_HOST:-}" ]; then
        compose down --volumes --timeout 10 >/dev/null 2>&1 || true
    fi
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
        ip netns delete "$namespace" 2>/dev/null || true
    fi
    rm -rf "$work" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT TERM

[ -x "$binary" ] || skip "no $binary: build it first (cargo build --release)"
if [ -z "${DOCKER_HOST:-}" ]; then
    [ "$(id -u)" = 0 ] || skip "starting an engine needs root"
    if ! command -v dockerd >/dev/null || ! command -v docker-compose >/dev/null || ! command -v iptables >/dev/null; then
        command -v apt-get >/dev/null || skip "no dockerd, and no apt-get to install it with"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            docker.io docker-compose iptables iproute2; } >"$work/apt.log" 2>&1 || skip "docker.io could not be installed"
    fi
    # Its own network namespace: its firewall rules and published ports meet nobody else's.
    ip netns add "$namespace" 2>"$work/netns.log" || skip "no network namespace: $(cat "$work/netns.log")"
    inside=(nsenter "--net=/run/netns/$namespace")
    "${inside[@]}" ip link set lo up
    "${inside[@]}" dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
        -H "unix://$work/docker.sock" >"$work/dockerd.log" 2>&1 &
    daemon=$!
    export DOCKER_HOST="unix://$work/docker.sock"
    for _ in $(seq 100); do
        if docker info >/dev/null 2>&1; then break; fi
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.2
    done
    docker info >/dev/null 2>&1 || { daemon_says="$(tail -n 3 "$work/dockerd.log")"; skip "dockerd does not start here: $daemon_says"; }
fi

echo "compose-check: image"
root="$work/context/rootfs"
mkdir -p "$root"/{data,genesis,tmp}
cp "$binary" "$root/blockraft"
cp genesis/*.json "$root/genesis/"
for library in $(ldd "$binary" | grep -oE '/[^ ]+\.so[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
# The runtime half of the Dockerfile, word for word but for where its files come from.
sed -n '/^FROM scratch/,$p' Dockerfile | sed 's|^COPY --from=build \(.*\) /rootfs/ /$|COPY \1 rootfs/ /|' >"$work/context/Dockerfile"
grep -q '^COPY --chown=65532:65532 rootfs/ /$' "$work/context/Dockerfile" || fail "the Dockerfile's COPY line is not the one expected"
DOCKER_BUILDKIT=0 engine build -q -t blockraft:local "$work/context" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; fail "image"; }

# Asks a node; prints the result as JSON.
call() { # node, method, parameters
    "${inside[@]}" python3 - "$((8544 + $1))" "$2" "$3" <<'PY'
import json, sys, urllib.request
body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": sys.argv[2], "params": json.loads(sys.argv[3])}).encode()
request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}", body, {"content-type": "application/json"})
answer = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5))
if "error" in answer:
    sys.exit(answer["error"]["message"])
print(json.dumps(answer["result"]))
PY
}
until_true() { # what, seconds, command..
    local what="$1" deadline=$((SECONDS + $2))
    shift 2
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || fail "$what, within the time given"
        sleep 0.3
    done
}
container() { compose ps -q "node$1"; }
healthy() { [ "$(engine inspect -f '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }
height() { printf '%d\n' "$(call "$1" eth_blockNumber '[]' | tr -d '"')"; }
reaches() { [ "$(height "$1")" -ge "$2" ]; }
leader() { call "$1" blockraft_status '[]' | python3 -c 'import json,sys; s=json.load(sys.stdin); print((s.get("cluster") or s)["leader"] or "")'; }
other_leader() { local now; now="$(leader "$1")" && [ -n "$now" ] && [ "$now" != "$2" ]; }

echo "compose-check: three nodes start"
compose up -d --no-build >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "compose up"; }
for node in 1 2 3; do until_true "node$node healthy" 60 healthy $node; done
for node in 1 2 3; do
    [ "$(engine inspect -f '{{.Config.User}}' "$(container $node)")" = 65532:65532 ] || fail "node$node runs as root"
    until_true "node$node makes blocks" 20 reaches $node 2
done

echo "compose-check: probes and metrics"
for path in livez readyz metrics; do
    "${inside[@]}" python3 -c 'import sys,urllib.request as u; u.build_opener(u.ProxyHandler({})).open(sys.argv[1], timeout=5)' \
        "http://127.0.0.1:8546/$path" || fail "/$path of node2"
done

echo "compose-check: a transfer sent to one node is seen on the others"
# 12,345 wei from the first development account to 0xc0ffe, nonce 0, chain 1337; signed once, good on any fresh chain.
signed=0xf8688085174876e8008252089400000000000000000000000000000000000c0ffe82303980820a96a0edeee3be512ed4b65804753a760eea5599f83d588c468573cdcfbaf16a8ddec9a02349a97bdf90de1817ea167fa411f4d1962cd895579d18a5dd1b70de2762fe1b
arrived() { [ "$(call "$1" eth_getBalance '["0x00000000000000000000000000000000000c0ffe", "latest"]')" = '"0x3039"' ]; }
call 2 eth_sendRawTransaction "[\"$signed\"]" >/dev/null || fail "node2 refused a transfer"
for node in 1 2 3; do until_true "the transfer on node$node" 10 arrived $node; done

echo "compose-check: the leader is killed"
old="$(leader 1)"
[ -n "$old" ] || fail "no leader"
survivor=$((old % 3 + 1))
engine kill "$(container "$old")" >/dev/null
until_true "another leader" 20 other_leader "$survivor" "$old"
after=$(($(height "$survivor") + 4))
until_true "blocks after the failover" 20 reaches "$survivor" "$after"
compose start "node$old" >/dev/null 2>&1
until_true "node$old healthy again" 60 healthy "$old"
until_true "node$old caught up" 30 reaches "$old" "$(height "$survivor")"
common="$(printf '"0x%x"' "$after")"
[ "$(call "$old" eth_getBlockByNumber "[$common, false]")" = "$(call "$survivor" eth_getBlockByNumber "[$common, false]")" ] \
    || fail "block $after differs between node$old and node$survivor"

echo "compose-check: all stop, all start, one chain"
before="$(height "$survivor")"
began=$SECONDS
compose stop >/dev/null 2>&1
[ $((SECONDS - began)) -lt 25 ] || fail "stopping took $((SECONDS - began)) s"
for node in 1 2 3; do
    code="$(engine inspect -f '{{.State.ExitCode}}' "$(engine ps -aq --filter "label=com.docker.compose.service=node$node" --filter "label=com.docker.compose.project=$project")")"
    [ "$code" = 0 ] || fail "node$node exited with $code"
done
compose start >/dev/null 2>&1
for node in 1 2 3; do
    until_true "node$node after the restart" 60 reaches $node "$before"
    until_true "the transfer on node$node after the restart" 10 arrived $node
done

echo "compose-check: passed in $SECONDS s"
