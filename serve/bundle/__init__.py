"""The bundle: its format, and everything that runs it without a server.

    manifest.py   the files of a bundle, and how they are read
    engine/       runtimes that execute a bundle: onnxruntime and TorchScript
    images.py     image files → the model's pixels, and back
    pictures/     files of any kind → upright 8-bit pictures
    framing.py    how the model's picture is cut out; ink.py finds what is written on a page
    score.py      how unusual an image is
    distribution.py  what to install for a module that is missing
    limits.py     the most that one request may ask for
    errors.py     the errors of all these

Batch jobs, export and the service import this package; it imports nothing else of the project.
"""

import os

# onnxruntime collects facts about this machine and its models, in a file in the user's home, and
# sends them to its maker. It reads this variable as it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
