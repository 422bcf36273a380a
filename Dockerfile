# One image for the service and for its Chroma server. It starts without a network: the default model is inside.

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS install
# The build of torch. This one is for the CPU; an empty value takes the package index's own, which is for CUDA and large.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=ocr
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/attest
ENV PATH=/opt/attest/bin:$PATH
WORKDIR /build
# Seldom changed things first, so that a change of our code copies a few hundred kilobytes and not the libraries.
COPY constraints.txt pyproject.toml ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"
RUN python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = [name for name in sys.argv[1].split(',') if name]; \
        print(*project['dependencies'], *(line for name in extras for line in project['optional-dependencies'][name]), sep='\n')" \
        "$EXTRAS" > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt
COPY README.md LICENSE ./
COPY rag rag
COPY ingest ingest
COPY app app
RUN pip install --no-deps --target /opt/code .


FROM python:${PYTHON_VERSION}-slim
RUN useradd --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin attest \
    && install -d -o attest -g attest /data /chroma
COPY --from=install /opt/attest /opt/attest
COPY --from=install /opt/code /opt/code
ENV PATH=/opt/attest/bin:/opt/code/bin:$PATH \
    PYTHONPATH=/opt/code \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ATTEST_DATA_DIR=/data \
    HF_HUB_OFFLINE=1 \
    HF_HOME=/data/models
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('ATTEST_PORT', '8000')}/healthz\", timeout=4)"]
# Listens on loopback until ATTEST_HOST and ATTEST_ADMIN_KEY are given, as docker-compose.yml does.
CMD ["attest", "serve"]
