# One image for provision, api, runner, projector and webhooks; the command says which. The broker is the official one.
FROM python:3.11-slim AS build
WORKDIR /src
# Hashes, so that what was tested is what is installed. The tools stay behind in this stage.
COPY requirements.lock requirements-dev.lock ./
RUN python -m venv /opt/opstream && /opt/opstream/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
RUN python -m venv /opt/tools && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r requirements-dev.lock
COPY pyproject.toml README.md LICENSE ./
COPY opstream ./opstream
COPY schemas ./schemas
COPY index ./index
COPY journal ./journal
COPY payloads ./payloads
COPY services ./services
COPY examples ./examples
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /src/dist . \
 && /opt/opstream/bin/pip install --no-cache-dir --no-deps /src/dist/*.whl

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 opstream && mkdir /data /index && chown opstream /data /index
COPY --from=build /opt/opstream /opt/opstream
ENV PATH=/opt/opstream/bin:$PATH PYTHONUNBUFFERED=1
USER opstream
WORKDIR /home/opstream
# SIGTERM ends every service cleanly, so the default stop signal is right.
ENTRYPOINT ["opstream"]
CMD ["--help"]
