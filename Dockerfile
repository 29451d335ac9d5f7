# syntax=docker/dockerfile:1
#
#   docker build -t residuum:cpu .                                 runs on the CPU
#   docker build -t residuum:cuda --build-arg FEATURES=cuda .      runs on NVIDIA GPUs
#
# The server listens beyond loopback in its container, so it needs an API key in its data folder before it starts:
#
#   docker run --rm -v residuum:/data residuum:cpu keys create --name me --scope write
#
# or --allow-unauthenticated (RESIDUUM_ALLOW_UNAUTHENTICATED=true) if nobody but you can reach the port.
#
# FEATURES names both the cargo features and the base images: empty, or `cuda`.
ARG FEATURES=""

FROM rust:1-bookworm AS toolchain-cpu

# The image of the CUDA compiler has no Rust: copy the toolchain from the image above.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS toolchain-cuda
COPY --from=toolchain-cpu /usr/local/cargo /usr/local/cargo
COPY --from=toolchain-cpu /usr/local/rustup /usr/local/rustup
ENV CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup PATH=/usr/local/cargo/bin:$PATH
# There is no GPU to ask while an image is built. Kernels for 8.0 (A100) also run on every newer card.
ARG CUDA_COMPUTE_CAP=80
ENV CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP}

FROM toolchain-${FEATURES:-cpu} AS builder
ARG FEATURES
WORKDIR /build
COPY . .
# Registry and build folder are kept between builds, so that a rebuild compiles only what changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,id=residuum-target-${FEATURES:-cpu},sharing=locked \
    cargo build --release --locked --bin residuum ${FEATURES:+--features "$FEATURES"} \
    && cp target/release/residuum /residuum

FROM debian:bookworm-slim AS base-cpu
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS base-cuda

FROM base-${FEATURES:-cpu} AS runtime
LABEL org.opencontainers.image.title="Residuum" \
      org.opencontainers.image.description="An activation server for language models" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# Certificates are for model hubs. /data has the store, /cache models from a hub; checkpoints are mounted at /models.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin residuum \
    && install -d -o residuum -g residuum /data /cache /models
COPY --from=builder /residuum /usr/local/bin/residuum
ENV RESIDUUM_LISTEN=0.0.0.0:8080 \
    RESIDUUM_DATA_DIR=/data \
    HF_HOME=/cache/huggingface
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# A large checkpoint takes a while to load: failures during the start period do not count.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["residuum", "healthcheck"]
ENTRYPOINT ["residuum"]
CMD ["serve"]
