"""The page of ``spark-rl demo`` as a Hugging Face Space.

``SPARK_RL_MODEL`` names the model: a hub id, or ``embedded`` (the default) and ``embedded-vl``, which need no download.
"""

import os
import sys

from spark_rl.cli import main

model = os.environ.get("SPARK_RL_MODEL", "embedded")
host, port = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), os.environ.get("GRADIO_SERVER_PORT", "7860")  # noqa: S104
sys.exit(main(["demo", "--model", model, "--host", host, "--port", port]))
