# Three images from one file:
#   docker build --target operator .
#   docker build --target trainer .        for TPUs
#   docker build --target trainer-cpu .    for machines without
# Each has one virtual environment, made of the versions in constraints.txt, and runs as a user without rights on a root
# that may be read-only: what is written goes to /tmp or to the volumes of the job.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /src
COPY . .
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/src/constraints.txt
RUN pip wheel --no-deps --wheel-dir /wheel .

FROM python:${PYTHON}-slim AS packages
COPY --from=wheel /wheel /wheel
COPY constraints.txt /constraints.txt
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/ratchet

FROM packages AS operator-packages
RUN pip --python /opt/ratchet/bin/python install --constraint /constraints.txt "$(ls /wheel/*.whl)[operator]"

FROM packages AS trainer-packages
RUN pip --python /opt/ratchet/bin/python install --constraint /constraints.txt "$(ls /wheel/*.whl)[tpu]"

FROM packages AS trainer-cpu-packages
RUN pip --python /opt/ratchet/bin/python install --constraint /constraints.txt "$(ls /wheel/*.whl)[trainer]"

FROM python:${PYTHON}-slim AS base
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Ratchet" \
      org.opencontainers.image.description="Reinforcement learning of language models on capacity that can vanish" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/ratchet-rl/ratchet" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/ratchet/bin:$PATH HOME=/tmp TZ=UTC PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["ratchet"]

FROM base AS trainer-cpu
COPY --from=trainer-cpu-packages /opt/ratchet /opt/ratchet
CMD ["trainer"]

FROM base AS trainer
COPY --from=trainer-packages /opt/ratchet /opt/ratchet
CMD ["trainer"]

FROM base AS operator
COPY --from=operator-packages /opt/ratchet /opt/ratchet
CMD ["operator"]
