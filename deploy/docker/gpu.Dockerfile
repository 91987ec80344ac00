# GeoZero on NVIDIA GPUs: docker build -f deploy/docker/gpu.Dockerfile -t geozero:gpu .
# The CUDA libraries come with torch's wheels; the driver comes from the host (NVIDIA Container Toolkit).
FROM python:3.11-slim-bookworm
# a C compiler: triton and vLLM compile kernels on first use
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential git make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /geozero
COPY requirements requirements
COPY pyproject.toml Makefile README.md LICENSE NOTICE ./
COPY geozero geozero
COPY flows flows
RUN make env PYTHON=python3.11 GEOZERO_ENV=gpu
COPY . .
ENV PATH=/geozero/.venv/bin:$PATH NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --create-home geozero && chown geozero /geozero
USER geozero
CMD ["geozero", "doctor"]
