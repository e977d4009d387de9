# syntax=docker/dockerfile:1
# One image for every process: the first argument chooses it (worker, scheduler, ...).
# Workers with a device: --build-arg EXTRAS=worker,scheduler,gateway,gpu,torch
ARG BASE=python:3.12.14-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254

FROM ${BASE} AS builder
# `gpu` adds NVML; `torch` is large, and a model server beside the worker is the better default.
ARG EXTRAS=worker,scheduler,gateway,inference,sealing,tracing
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY scripts/image_install.sh scripts/image_install.sh
COPY millstream millstream
COPY worker worker
COPY scheduler scheduler
COPY gateway gateway
# The environment is built where it will live: its scripts name their interpreter by full path.
RUN --mount=type=cache,target=/root/.cache/pip sh scripts/image_install.sh /opt/millstream "${EXTRAS}"


FROM ${BASE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="millstream" \
      org.opencontainers.image.description="Durable agent workflows on the Redis you already run." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

RUN python -m pip uninstall --quiet --yes --root-user-action ignore pip \
 && groupadd --gid 10001 millstream \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin millstream

COPY --from=builder /opt/millstream /opt/millstream

# The root file system may be read-only: byte code was compiled by the builder, and /tmp is the
# only place that is written.
ENV PATH=/opt/millstream/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

# An application's workflows are mounted or copied here: `millstream worker flows:app`.
WORKDIR /app
USER 10001:10001

# HTTP, gRPC, metrics and probes.
EXPOSE 8080 8081 9090
# The processes drain on SIGTERM; give them longer than their grace before killing.
STOPSIGNAL SIGTERM
ENTRYPOINT ["millstream"]
CMD ["--help"]
