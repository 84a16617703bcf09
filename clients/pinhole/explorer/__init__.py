"""The web explorer: a map of the model's embeddings, with the model's answers live.

page/    what the browser runs; the gateway's image serves this folder as it is
assets   where those files are
server   ``pinhole explore``: the page and the service's API as one origin on this host
"""
