# Two images from one file: `docker build --target operator .` and `docker build --target trainer .`
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS source
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY trainer trainer
COPY cli cli
COPY cluster cluster
COPY helm helm

FROM python:${PYTHON}-slim AS operator
RUN --mount=from=source,source=/src,target=/src,rw pip install --no-cache-dir --constraint /src/constraints.txt '/src[operator]'
USER 10001
ENV TZ=UTC PYTHONUNBUFFERED=1
ENTRYPOINT ["ratchet"]
CMD ["operator"]

FROM python:${PYTHON}-slim AS trainer
RUN --mount=from=source,source=/src,target=/src,rw pip install --no-cache-dir --constraint /src/constraints.txt '/src[tpu]'
USER 10001
ENV TZ=UTC PYTHONUNBUFFERED=1
ENTRYPOINT ["ratchet"]
CMD ["trainer"]
