#!/usr/bin/env bash
# Real clients against a real cluster: cast and forge, viem, ethers, web3.py, and web3.py's published
# provider suite. Usage: run.sh PATH-TO-BLOCKRAFT [STEP..] with STEP of foundry viem ethers web3py suite.
#
# Packages are pinned by package-lock.json and requirements.txt and kept in the user's cache. Where they
# cannot be had the test says so and succeeds, except with CI=true, where that is a failure.
# UPDATE_EXPECT=1 rewrites the list of the suite's passes; SUITE_LOG=FILE keeps what pytest said.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
binary="$(realpath "${1:?usage: run.sh PATH-TO-BLOCKRAFT [STEP..]}")"
shift
steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(foundry viem ethers web3py suite)
work="$(mktemp -d "${TMPDIR:-/tmp}/blockraft-clients-XXXXXX")"
started=()
failed=()

# Asks a process that this script started to stop, and insists after twenty seconds.
stop() { # pid
    local rc=0 waited=0
    kill -INT "$1" 2>/dev/null || true
    while kill -0 "$1" 2>/dev/null && [ $waited -lt 200 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    if kill -0 "$1" 2>/dev/null; then
        kill -KILL "$1"
        rc=124
    fi
    wait "$1" 2>/dev/null || rc=$?
    return $rc
}
finish() {
    local pid
    for pid in "${started[@]}"; do stop "$pid" || true; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

unavailable() {
    printf '\n**** client packages not available, skipped: %s ****\n\n' "$1" >&2
    if [ "${CI:-}" = true ]; then
        echo "clients: a skip is a failure in CI" >&2
        exit 1
    fi
    exit 0
}

# Pinned packages, in a folder named after what pins them.
install_packages() {
    local tool pins staging
    for tool in node npm python3; do command -v $tool >/dev/null || unavailable "no $tool"; done
    pins="$(cat "$here/package-lock.json" "$here/requirements.txt" | sha256sum | cut -c1-16)"
    packages="${XDG_CACHE_HOME:-$HOME/.cache}/blockraft/clients/$pins"
    mkdir -p "$(dirname "$packages")"
    exec 9>"$packages.lock"
    flock 9
    if [ ! -e "$packages/complete" ]; then
        echo "clients: installing packages"
        rm -rf "$packages"
        mkdir -p "$packages"
        cp "$here/package.json" "$here/package-lock.json" "$packages/"
        # Not `npm ci`: the lock knows one platform's binaries, and on others npm has to add theirs.
        (cd "$packages" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error) >"$work/install.log" 2>&1 \
            || { tail -n 20 "$work/install.log" >&2; unavailable "npm install failed"; }
        { python3 -m venv "$packages/venv" \
            && "$packages/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"; } >"$work/install.log" 2>&1 \
            || { tail -n 20 "$work/install.log" >&2; unavailable "pip install failed"; }
        touch "$packages/complete"
    fi
    flock -u 9
}

# The first of a run of ports that nobody listens on, RPC and (100 higher) Raft.
free_ports() { # how many
    python3 - "$1" <<'PY'
import random, socket, sys
count = int(sys.argv[1])
def free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False
while True:
    base = random.randrange(20_000, 30_000, 200)
    if all(free(base + i) and free(base + 100 + i) for i in range(count)):
        print(base)
        break
PY
}

# Starts a blockraft command in the background and waits for the JSON that says it is ready.
launch() { # name, arguments..
    local name="$1" waited=0
    shift
    "$binary" "$@" -o json >"$work/$name.json" 2>"$work/$name.log" &
    launched=$!
    started+=("$launched")
    until python3 -c 'import json,sys; json.load(open(sys.argv[1]))' "$work/$name.json" 2>/dev/null; do
        if ! kill -0 "$launched" 2>/dev/null || [ $waited -ge 600 ]; then
            echo "clients: blockraft $* did not become ready" >&2
            tail -n 40 "$work/$name.log" >&2
            exit 1
        fi
        sleep 0.1
        waited=$((waited + 1))
    done
}
# A value out of what a command printed: an expression over `it`.
told() { # name, expression
    python3 -c 'import json,sys; it = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$work/$1.json" "$2"
}
wants() { case " ${steps[*]} " in *" $1 "*) return 0 ;; *) return 1 ;; esac }
run_step() { # name, index of the account it spends from, command..
    local name="$1" account="$2" began=$SECONDS
    shift 2
    wants "$name" || return 0
    if (cd "$work/tests" && PRIVATE_KEY="$(told devnet "it['accounts'][$account]['privateKey']")" "$@") 9>&-; then
        echo "clients: $name ok, $((SECONDS - began)) s"
    else
        echo "clients: $name FAILED" >&2
        failed+=("$name")
    fi
}

install_packages
# The scripts run on a copy: node finds its packages beside them, and forge writes where it stands.
mkdir "$work/tests"
cp -r "$here/." "$work/tests/"
ln -s "$packages/node_modules" "$work/tests/node_modules"
python="$packages/venv/bin/python"
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 PYTHONDONTWRITEBYTECODE=1 FOUNDRY_DISABLE_NIGHTLY_WARNING=1

if wants foundry || wants viem || wants ethers || wants web3py; then
    (cd "$work/tests/contracts" && "$packages"/node_modules/@foundry-rs/forge-*/bin/forge build --offline --use ../solc >"$work/forge.log" 2>&1) \
        || { cat "$work/forge.log" >&2; exit 1; }
    launch devnet devnet --nodes 3 --port "$(free_ports 3)" --datadir "$work/devnet"
    devnet=$launched
    RPC_URLS="$(told devnet "' '.join(n['rpc'] for n in it['nodes'])")"
    CHAIN_ID="$(told devnet "int(it['chainId'])")"
    export RPC_URLS CHAIN_ID
    echo "clients: a devnet of three nodes is ready: $RPC_URLS"
    run_step foundry 0 ./foundry.sh
    run_step viem 1 node viem.mjs
    run_step ethers 2 node ethers.mjs
    run_step web3py 3 "$python" web3py/scenario.py
    [ ${#failed[@]} -eq 0 ] || tail -n 40 "$work/devnet.log" "$work"/devnet/*/node.log >&2 || true
    stop "$devnet" || { echo "clients: devnet did not stop cleanly" >&2; failed+=("stopping the devnet"); }
fi

# A part of web3.py's suite on a chain of its own: its log tests want a fresh one.
suite_part() { # name, block time, which tests
    local node
    launch "$1" dev --port "$(free_ports 1)" --genesis "$work/suite-genesis.json" --datadir "$work/$1" --block-time "$2"
    node=$launched
    # Failures are expected; which tests passed is compared below.
    (cd "$work/tests/web3py" \
        && SUITE_URL="$(told "$1" "it['nodes'][0]['rpc']")" PRIVATE_KEY="$(told "$1" "it['accounts'][0]['privateKey']")" \
            "$python" -m pytest -q --tb=line -k "$3" test_suite.py) >>"$work/pytest.log" 2>&1 || true
    tail -n 1 "$work/pytest.log"
    stop "$node" || { echo "clients: dev did not stop cleanly" >&2; failed+=("stopping dev"); }
}

if wants suite; then
    began=$SECONDS
    python3 - "$root/genesis/dev.json" "$work/suite-genesis.json" <<'PY'
import json, sys
genesis = json.load(open(sys.argv[1]))
genesis["config"]["chainId"] = 131277322940537  # written into the suite's tests
json.dump(genesis, open(sys.argv[2], "w"))
PY
    expected="$here/web3py/expected_pass.txt"
    export SUITE_PASSED="$work/passed.txt"
    touch "$SUITE_PASSED"
    suite_part instant 0 "not TestWebSocket"
    # Subscriptions to heads wait for blocks that nobody asked for.
    suite_part timed 0.25 TestWebSocket
    # The suite reads "latest" and acts on it while blocks come and go, so a test may lose a race that is its
    # own. What is pinned and did not pass gets one more chance, on a chain of its own, and it is said.
    LC_ALL=C sort -u -o "$SUITE_PASSED" "$SUITE_PASSED"
    again="$(LC_ALL=C comm -23 "$expected" "$SUITE_PASSED" | sed 's/.*:://; s/\[.*//' | sort -u)"
    if [ -n "$again" ] && [ "$(wc -l <<<"$again")" -le 3 ]; then
        echo "clients: once more, on a fresh chain:" $again
        suite_part again 0.25 "$(paste -sd'|' <<<"$again" | sed 's/|/ or /g')"
    fi
    LC_ALL=C sort -u -o "$SUITE_PASSED" "$SUITE_PASSED"
    [ -z "${SUITE_LOG:-}" ] || cp "$work/pytest.log" "$SUITE_LOG"
    if [ "${UPDATE_EXPECT:-}" = 1 ]; then cp "$SUITE_PASSED" "$expected"; fi
    LC_ALL=C comm -13 "$expected" "$SUITE_PASSED" | sed 's/^/clients: passes and is not pinned: /'
    missing="$(LC_ALL=C comm -23 "$expected" "$SUITE_PASSED")"
    echo "clients: web3.py suite: $(wc -l <"$SUITE_PASSED") passed, $(wc -l <"$expected") pinned, $((SECONDS - began)) s"
    if [ -n "$missing" ]; then
        cut -c1-400 "$work/pytest.log" | grep -E '^(E  |FAILED|ERROR)' | tail -n 150 >&2 || true
        tail -n 20 "$work"/{instant,timed}.log >&2
        printf 'clients: PINNED AND NOT PASSED:\n%s\n' "$missing" >&2
        failed+=("web3.py's suite")
    fi
fi

if [ ${#failed[@]} -gt 0 ]; then
    echo "clients: FAILED: ${failed[*]}" >&2
    exit 1
fi
echo "clients: all passed"
