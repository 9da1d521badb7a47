# Two images from one file: `service` (no torch) and `worker` (torch, for the CPU by default).
# Nothing here needs a compiler or BuildKit; docs/compose.md says how to choose torch's build.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# ---- what both images start from -------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS runtime
# UTF-8 and unbuffered: logs arrive whole and at once. No bytecode: the root file system is read-only.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRADPROBE_DATA_DIRECTORY=/data
# A named volume mounted on /data for the first time takes over the owner that the directory has here.
RUN groupadd --gid 10001 gradprobe \
 && useradd --uid 10001 --gid gradprobe --no-create-home --home-dir /tmp --shell /usr/sbin/nologin gradprobe \
 && install -d -o gradprobe -g gradprobe -m 0750 /data
WORKDIR /srv
USER 10001:10001

# ---- a virtual environment, and the project's list of dependencies ------------------------------------------
FROM ${PYTHON_IMAGE} AS builder
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
# An empty package with the real pyproject.toml: a change of the source then leaves the dependencies' layer as it is.
WORKDIR /dependencies
COPY pyproject.toml ./
RUN mkdir gradprobe && touch gradprobe/__init__.py README.md LICENSE

FROM builder AS service-builder
RUN pip install '.[service,export,objects,telemetry]'
COPY . /source
RUN pip install --no-deps --force-reinstall /source

FROM runtime AS service
COPY --from=service-builder /opt/venv /opt/venv
EXPOSE 8000

FROM builder AS worker-builder
ARG TORCH_VERSION=2.13.0
# cpu, or a CUDA build as PyTorch names it (cu130): the part behind the + of torch's version.
ARG TORCH_BUILD=cpu
# The package index that PyTorch's "Get Started" page names for that build; empty: pip's own.
ARG TORCH_INDEX_URL=
RUN set -eu; \
    if [ -n "${TORCH_INDEX_URL}" ]; then \
        pip install --extra-index-url "${TORCH_INDEX_URL}" "torch==${TORCH_VERSION}+${TORCH_BUILD}"; \
    elif ! pip install "torch==${TORCH_VERSION}+${TORCH_BUILD}"; then \
        echo "pip's index has no torch ${TORCH_VERSION}+${TORCH_BUILD}; installing its plain torch ${TORCH_VERSION} instead."; \
        echo "On Linux that one brings CUDA's libraries: it works on a CPU too, but is gigabytes larger. For the small"; \
        echo "one, set GRADPROBE_TORCH_INDEX_URL (see docs/compose.md) and build again."; \
        pip install "torch==${TORCH_VERSION}"; \
    fi
RUN pip install '.[worker,telemetry]'
COPY . /source
RUN pip install --no-deps --force-reinstall /source

FROM runtime AS worker
COPY --from=worker-builder /opt/venv /opt/venv
