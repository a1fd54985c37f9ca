# `just` lists the recipes. Everything is built in the release profile: see docs/decisions/0006.

_default:
    @just --list

# The read-only gate: format, lints, documentation.
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --document-private-items

# Write what can be mended without thinking.
fix:
    cargo fmt --all
    cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged

# Every test, the client tests included.
test *args:
    cargo test --release --workspace {{ args }}

# Clusters of real processes under load, killed with -9 and compared.
sim:
    cargo test --release --workspace --test cluster

# The load generator: `just bench send --help`.
bench *args:
    cargo run --release -p blockraft-bench -- {{ args }}

# Three nodes in containers, in the foreground.
up:
    docker compose up --build
