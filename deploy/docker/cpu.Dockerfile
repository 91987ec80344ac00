# GeoZero on CPUs, and both servers of the stack: docker build -f deploy/docker/cpu.Dockerfile -t geozero:cpu .
FROM python:3.11.13-slim-bookworm
# not pinned: Debian's archive keeps a version only until the next
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 geozero
WORKDIR /geozero
COPY requirements requirements
COPY pyproject.toml Makefile README.md LICENSE NOTICE ./
COPY geozero geozero
COPY flows flows
# beside the checkout, so that one can be mounted over /geozero
RUN make env PYTHON=python3.11 GEOZERO_ENV=cpu VENV=/usr/local/geozero
COPY --chown=1000:1000 . .
# a volume takes the owner of the directory that it is mounted at
RUN mkdir -p /prefect /artifacts && chown 1000:1000 . data models /prefect /artifacts
USER 1000:1000
ENV PATH=/usr/local/geozero/bin:$PATH HOME=/tmp GEOZERO_CHECKOUT=/geozero OMP_NUM_THREADS=1
# there is no git repository in the image, which DVC would ask for
RUN dvc config --local core.no_scm true
CMD ["geozero", "doctor"]
