# The bridge as an image: no compiler, no package installer at run time, nothing written outside /var/lib/bridge and /tmp.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
# Two environments: one that builds, and one that becomes the image. Every file is checked against its hash, and only
# ready-made wheels are used.
RUN python3 -m venv /opt/build \
 && python3 -m venv --without-pip /opt/bridge \
 && /opt/build/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements-build.lock \
 && /opt/build/bin/pip --python /opt/bridge/bin/python3 install --no-compile \
    --no-deps --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY bridge bridge/
COPY plugins plugins/
# Compiled once, for good: the file system is read-only later, and the sources do not change under the bytecode.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . ./plugins/* \
 && /opt/build/bin/pip --python /opt/bridge/bin/python3 install --no-compile --no-deps --no-index /wheels/*.whl \
 && /opt/bridge/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /opt/bridge/lib \
 && install -d -m 0700 /state

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bridge" \
      org.opencontainers.image.description="Delivery statuses of messaging providers as typed events on RabbitMQ or Redis topics, Slack and webhooks" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/bridge /opt/bridge
COPY --from=build --chown=10001:10001 /state /var/lib/bridge
# The state directory holds the default store and broker where none is configured; it is also the nameless user's home.
ENV PATH=/opt/bridge/bin:/usr/local/bin:/usr/bin:/bin \
    BRIDGE_STATE_DIR=/var/lib/bridge \
    HOME=/var/lib/bridge \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/bridge
USER 10001:10001
VOLUME /var/lib/bridge
EXPOSE 8080
# Alive, not ready: a broker that is unavailable is no reason to restart a bridge that waits for it.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python3", "-ISc", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8080, timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["bridgectl"]
CMD ["run", "-c", "/etc/bridge/bridge.yaml"]
