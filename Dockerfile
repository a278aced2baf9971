# The app alone, on PyTorch's CPU build; docker-compose.yml adds a Qdrant server.
FROM python:3.12-slim

WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
# PyTorch first, from its own index of CPU builds; everything else is pinned in the lock
RUN pip install --no-cache-dir "$(grep '^torch==' requirements.lock)" --index-url https://download.pytorch.org/whl/cpu \
 && pip install --no-cache-dir -r requirements.lock
COPY app.py ./
COPY .streamlit .streamlit
COPY app_pages app_pages
COPY ingest ingest
COPY rag rag
COPY models models
COPY samples/__init__.py samples/questions.jsonl samples/
COPY samples/pdfs samples/pdfs
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
 && useradd --create-home app && mkdir /data && chown app /data
USER app
EXPOSE 8501
CMD ["second-look", "serve"]
