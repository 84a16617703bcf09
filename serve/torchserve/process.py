"""TorchServe's JVM as a child process: its configuration, its start and its end."""

import json
import logging
import os
import signal
import subprocess
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from serve.bundle.distribution import install_command
from serve.bundle.engine.host import usable_cores
from serve.bundle.limits import MAX_BODY_BYTES, MAX_REPLY_BYTES
from serve.endpoints import ENDPOINTS
from serve.errors import LaunchError
from serve.launcher.logs import JVM_PATTERNS
from serve.launcher.settings import Settings
from serve.torchserve.java import find_java
from serve.torchserve.memory import memory_flags
from serve.torchserve.sockets import management_socket, metrics_socket
from serve.torchserve.store import activity_folder, metrics_folder

logger = logging.getLogger(__name__)

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client writes; workers inherit it
# How the JVM copies what workers have written: a text gets the time, JSON has it already.
WORKER_PATTERNS = {"text": "%d{yyyy-MM-dd HH:mm:ss,SSS} %m%n", "json": "%m%n"}
# OpenBLAS and OpenMP start a thread for each core of the host as they are loaded, in every worker.
# Engines have settings of their own (``threads``), which these variables don't limit.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
IPV6_NAME = "ipv6"  # stands for the address in TorchServe's configuration
STOP_S = 20.0  # for TorchServe to end by itself before it is killed


def start(settings: Settings, home: Path) -> subprocess.Popen[bytes]:
    """Start TorchServe on version 1 of the endpoints; returns at once, long before it is ready.

    Args:
        settings: of the service.
        home: where serve.torchserve.store has written version 1; outlives the process.

    Raises:
        LaunchError: no Java, or TorchServe isn't installed.
    """
    config = home / "config.properties"
    config.write_text(server_config(settings, home))
    for folder in (home / "tmp", activity_folder(home), metrics_folder(home)):
        folder.mkdir(exist_ok=True)
    command: list[str | Path] = [
        *(sys.executable, "-m", "serve.torchserve.supervised", str(os.getpid())),
        find_java(),
        *memory_flags(len(ENDPOINTS) * settings.worker_count),
        "-XX:+DisplayVMOutputToStderr",  # why Java itself has crashed, which would go to stdout
        f"-XX:ActiveProcessorCount={usable_cores()}",  # sizes its thread pools; rounds no quota up
        f"-Dmodel_server_home={torchserve_home()}",
        f"-Dlog4j.configurationFile={resources.files('serve.torchserve') / 'log4j2.xml'}",
        f"-Dpinhole.pattern={JVM_PATTERNS[settings.log_format]}",
        f"-Dpinhole.workers={WORKER_PATTERNS[settings.log_format]}",
        f"-Djava.io.tmpdir={home / 'tmp'}",
        *ipv6_flags(settings, home),
        # TorchServe hands each batch to Java's common pool. With two cores that pool has no threads
        # of its own, and Java would start a thread for each batch.
        f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={max(2, usable_cores())}",
        "-cp",
        torchserve_home() / "ts" / "frontend" / "*",
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", config),
        *("-s", home / "models"),
        "-ncs",
        "--disable-token-auth",
    ]
    # A session of its own keeps Ctrl-C from TorchServe: Ctrl-C reaches the launcher alone, which
    # drains TorchServe before it stops it.
    return subprocess.Popen(
        command,
        cwd=home,
        stdin=subprocess.DEVNULL,
        # What TorchServe prints there at every start reads like failures; its log goes to stderr.
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(home),
    )


def ipv6_flags(settings: Settings, home: Path) -> list[str]:
    """Java's options for a ``--host`` that is an IPv6 address; none for another.

    TorchServe's configuration takes no host with a colon. So it gets a name, and Java a file of
    hosts (jdk.net.hosts.file) that knows this one name.
    """
    if ":" not in settings.host:
        return []
    hosts = home / "hosts"
    hosts.write_text(f"{settings.host} {IPV6_NAME}\n")
    return [f"-Djdk.net.hosts.file={hosts}"]


def environment(home: Path) -> dict[str, str]:
    """The environment of the JVM, and of the workers that the JVM starts."""
    kept = dict(os.environ)
    kept.pop("TS_CONFIG_FILE", None)  # TorchServe would read it in place of our configuration
    # With the locale C, Java finds no file under a path that isn't ASCII.
    ours = {METRICS_VARIABLE: str(metrics_folder(home)), "LC_ALL": "C.UTF-8"}
    return kept | ours | dict.fromkeys(THREAD_VARIABLES, "1")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End TorchServe and its workers; kill them if that takes over STOP_S."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        logger.warning("TorchServe did not stop within %.0f s; killing it", STOP_S)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def torchserve_home() -> Path:
    """The directory that holds the ``ts`` package.

    Raises:
        LaunchError: TorchServe isn't installed.
    """
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise LaunchError(f"TorchServe isn't installed: {install_command('serve', 'cpu')}")
    return Path(spec.origin).parent.parent


def server_config(settings: Settings, home: Path) -> str:
    """config.properties; only the inference API may leave loopback."""
    host, store = IPV6_NAME if ":" in settings.host else settings.host, home / "models"
    properties = {
        "inference_address": f"http://{host}:{settings.port}",
        "management_address": f"unix:{management_socket(home)}",
        "metrics_address": f"unix:{metrics_socket(home)}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": settings.port + 4,
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": settings.port + 5,
        "initial_worker_port": settings.port + 1_000,  # names of sockets, not TCP ports
        "model_store": store,
        "load_models": ",".join(f"{endpoint}={endpoint}-1" for endpoint in ENDPOINTS),
        "enable_model_api": "true",  # swaps would get a 405 otherwise
        "allowed_urls": f"file://{store}/.*",
        # TorchServe would write a batch into the heap first, and then copy it to direct memory.
        "prefer_direct_buffer": "true",
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
        # Requests that wait for one endpoint; a further one is refused (503). The default, 100, is
        # too small: the gateway lets a caller have 64 at a time. With many more, callers would wait
        # for seconds before they are told.
        "job_queue_size": 256,
        # A body just over the contract's limit still reaches the handler, which refuses it in JSON.
        "max_request_size": MAX_BODY_BYTES + 65_536,
        "max_response_size": MAX_REPLY_BYTES + 65_536,
    }
    # Java reads the file as Latin-1, with \uXXXX for other characters, as JSON has them.
    return "".join(f"{key}={json.dumps(str(value))[1:-1]}\n" for key, value in properties.items())
