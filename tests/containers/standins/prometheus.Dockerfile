# In place of prom/prometheus: the machine's own binary, from Debian's package.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
COPY prometheus /bin/prometheus
RUN mkdir /prometheus && chown 65534:65534 /prometheus
ENTRYPOINT ["/bin/prometheus"]
