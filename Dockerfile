# Images of Stancewatch: the worker, and the one of `stancewatch discover`, which adds BERTopic.
#
#   docker build -t stancewatch:local .
#   docker build -t stancewatch-discover:local --target discover .
#
# The base image is pinned by its full version tag. A digest would be stricter still, but it has to be read from a
# registry by whoever builds; add it as `python:<tag>@sha256:<digest>` where your policy asks for it.
FROM python:3.11.15-slim-bookworm AS base

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1


FROM base AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /src
RUN python -m venv /opt/venv

# Dependencies first: this layer is rebuilt only when the lock changes.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE* NOTICE* ./
COPY classifiers ./classifiers
COPY stream ./stream
RUN pip install --no-deps --no-build-isolation .


FROM base AS runtime

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Stancewatch" \
      org.opencontainers.image.description="Counts news articles by topic and stance from a Kafka stream" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

# A fixed uid keeps the ownership of state volumes stable across image builds.
RUN groupadd --gid 10001 stancewatch \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin stancewatch \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/stancewatch

COPY --from=builder /opt/venv /opt/venv

# Inside a container loopback is unreachable for Prometheus, hence 0.0.0.0; nothing is published on the host.
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    STANCEWATCH_DATA_DIR=/var/lib/stancewatch \
    STANCEWATCH_METRICS_HOST=0.0.0.0 \
    STANCEWATCH_METRICS_PORT=9464 \
    STANCEWATCH_STORE=rocksdb

WORKDIR /var/lib/stancewatch
USER 10001:10001
EXPOSE 9464

# http.client rather than urllib: a proxy variable that Docker injects must not capture a loopback request.
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['STANCEWATCH_METRICS_PORT']), timeout=3); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["stancewatch"]
CMD ["worker"]


# The same with BERTopic: a layer more than the worker's image. The lock is whole, and BERTopic's own list asks for
# torch: hence --no-deps.
FROM runtime AS discover

USER root
COPY requirements-discover.lock /src/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /src/requirements-discover.lock

# numba would keep what it compiles beside its sources, where nobody may write; without it, each start pays anew.
ENV NUMBA_CACHE_DIR=/var/lib/stancewatch/numba \
    STANCEWATCH_DISCOVER_PORT=9466

USER 10001:10001
EXPOSE 9466

HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['STANCEWATCH_DISCOVER_PORT']), timeout=3); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

CMD ["discover"]


# Last: what is built without --target.
FROM runtime AS worker
