"""HTTP sessions for addresses of this host."""

import requests


def loopback_session() -> requests.Session:
    """A session that uses no proxy, whatever the environment says."""
    session = requests.Session()
    session.trust_env = False
    return session
