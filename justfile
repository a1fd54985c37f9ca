# `just` lists the recipes. Everything is built in the release profile: see docs/decisions/0006.

_default:
    @just --list

# The read-only gate: format, lints, documentation.
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --lib --bins -- -D warnings
    cargo clippy --release --workspace --all-targets -- -D warnings -A clippy::unwrap_used -A clippy::print_stdout -A unreachable_pub
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# Write what can be mended without thinking.
fix:
    cargo fmt --all
    cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged

# Every test, the client tests included.
test *args:
    cargo test --release --workspace {{ args }}

# The seeded whole-cluster simulator; a failure prints the line that replays it.
sim seeds="32" first="0":
    BLOCKRAFT_SIM_SEEDS={{ seeds }} BLOCKRAFT_SIM_FIRST={{ first }} cargo test --release --workspace --test seeds -- --nocapture

# The load generator: `just bench send --help`.
bench *args:
    cargo run --release -p blockraft-bench -- {{ args }}

# Three nodes in containers, in the foreground.
up:
    docker compose up --build
