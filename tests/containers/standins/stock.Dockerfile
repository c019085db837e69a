# In place of tensorflow/serving: the same flags and paths, and no ScaNN ops either.
ARG SERVER_IMAGE
FROM ${SERVER_IMAGE}
USER 0:0
RUN sed -i 's/serving.embedded/& --enable_scann_ops=false/' /usr/bin/tensorflow_model_server
USER 65532:65532
HEALTHCHECK NONE
