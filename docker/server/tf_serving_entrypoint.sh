#!/bin/sh
# As in the stock image, MODEL_NAME and MODEL_BASE_PATH say what to serve unless flags do.
# Unlike the stock image's script, it execs the server, so that the server gets SIGTERM.
exec /usr/bin/tensorflow_model_server --port=8500 --rest_api_port=8501 \
    --model_name="${MODEL_NAME}" --model_base_path="${MODEL_BASE_PATH}/${MODEL_NAME}" "$@"
