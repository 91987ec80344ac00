# GeoZero on CPUs, and both servers of the stack: docker build -f deploy/docker/cpu.Dockerfile -t geozero:cpu .
FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /geozero
COPY requirements requirements
COPY pyproject.toml Makefile README.md LICENSE NOTICE ./
COPY geozero geozero
COPY flows flows
RUN make env PYTHON=python3.11 GEOZERO_ENV=cpu
COPY . .
ENV PATH=/geozero/.venv/bin:$PATH OMP_NUM_THREADS=1
RUN useradd --create-home geozero && chown geozero /geozero
USER geozero
CMD ["geozero", "doctor"]
