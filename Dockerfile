# One static binary on an empty image. Build: docker build -t blockraft .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# A target is named so that the flag does not reach build scripts and procedural macros.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" \
    && mkdir -p /rootfs/data /rootfs/genesis /rootfs/tmp \
    && cp "target/$target/release/blockraft" /rootfs/blockraft \
    && cp genesis/*.json /rootfs/genesis/

# etc/compose-check.sh builds what follows with its own /rootfs: keep the two in step.
FROM scratch
COPY --from=build --chown=65532:65532 /rootfs/ /
USER 65532:65532
ENV BLOCKRAFT_DATADIR=/data
VOLUME /data
# 8545: JSON-RPC, WebSocket, probes and metrics. 8645: the other members.
EXPOSE 8545 8645
STOPSIGNAL SIGTERM
# There is no shell here: the binary asks its own node, and fails while no leader is known.
HEALTHCHECK --interval=2s --timeout=5s --start-period=30s --retries=5 CMD ["/blockraft", "status", "--ready", "--rpc", "http://127.0.0.1:8545"]
ENTRYPOINT ["/blockraft"]
CMD ["node"]
