# TiKMiX Pipeline on CPUs. What a run leaves stays in the checkout, which is mounted:
#
#   docker build --tag tikmix .
#   docker run --rm --volume "$PWD:/project" tikmix kedro run --env smoke
#
# PyPI's torch for Linux is a CUDA build of several GB; a CPU build comes in by an index of your own:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=... --tag tikmix .
FROM python:3.11.13-slim-bookworm AS tools
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*

FROM tools
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 MLFLOW_DISABLE_TELEMETRY=true
# git refuses to name the commit of a folder that belongs to another user
RUN git config --system --add safe.directory /project
WORKDIR /project
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --editable ".[viz]"
COPY . .
CMD ["kedro", "run"]
