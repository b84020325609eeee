# One image for the service, the migration job and the gateway example.
# BASE is any image with Python 3.11 or newer and its venv module; pin it by digest: --build-arg BASE=…@sha256:…
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE} AS build
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PROJECT_ENVIRONMENT=/opt/auth-service
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv==0.13.9
WORKDIR /source
# The dependencies first: they change less often than the code.
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --frozen --no-cache --extra server --extra gateway --no-install-project
COPY README.md LICENSE ./
COPY auth_service auth_service
COPY gateway_example gateway_example
RUN /opt/uv/bin/uv sync --frozen --no-cache --extra server --extra gateway --no-editable

FROM ${BASE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="auth-service" \
      org.opencontainers.image.description="Issues and rotates RS256 access and refresh JWTs, publishes their keys and what is revoked" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/auth-service /opt/auth-service
# Nothing is written: the root may be read-only. With several workers, /tmp must be writable for their metrics.
ENV PATH=/opt/auth-service/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    AUTH_LISTEN=0.0.0.0:8000 AUTH_INTERNAL_LISTEN=0.0.0.0:9000
USER 10001:10001
EXPOSE 8000 9000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9000/healthz', timeout=2)"]
ENTRYPOINT ["auth-service"]
CMD ["serve"]
