"""Embed, reconstruct and decode one image: python sample.py digit.png [URL]."""

import sys
from pathlib import Path

from pinhole import Client

file = sys.argv[1]
url = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8080"

with Client(url) as client:
    embedding = client.embed(file)
    print("embedding", embedding)

    answer = client.reconstruct(file)
    print(f"mse {answer.mse:.4f}, worse than {answer.percentile:.0f} % of known images")
    Path("reconstruction.png").write_bytes(answer.png)

    Path("decoded.png").write_bytes(client.decode_png([embedding]))
