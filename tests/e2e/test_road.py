"""Real handwriting, sent to a real service, gets the embeddings of eager PyTorch."""

import base64
import io
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
import requests
import torch
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families

from pinhole import BadRequest, Client
from pinhole.cli import main
from pinhole.images import Image
from pinhole.limits import Limits, read_limits
from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from serve.launcher import readiness
from train.checkpoint import load_checkpoint
from train.dataset import Dataset

from .conftest import Running, wait_until

SHIPPED = Path(__file__).parents[2] / "weights" / "mnist"
TOLERANCE = 1e-3  # between runtimes, of embeddings whose standard deviation is about 1


@pytest.fixture(scope="module")
def eager(digits: Dataset) -> np.ndarray:
    """What eager PyTorch makes of the digits' test images."""
    with torch.inference_mode():
        return load_checkpoint(SHIPPED).model.encode(digits.test_images).numpy()


def test_every_form_gives_eager_embeddings(
    client: Client, digits: Dataset, eager: np.ndarray
) -> None:
    """One file, many files and an array of the same pixels all get eager PyTorch's embeddings."""
    images = digits.test_images.numpy()

    array = client.embed(images)
    many = client.embed([write_png(image) for image in images[:40]])
    one = client.embed(write_png(images[0]))

    assert array == pytest.approx(eager, abs=TOLERANCE)
    assert many == pytest.approx(eager[:40], abs=TOLERANCE)
    assert one == pytest.approx(eager[0], abs=TOLERANCE)


def test_every_kind_of_image(
    client: Client, digits: Dataset, eager: np.ndarray, tmp_path: Path
) -> None:
    """A generator may mix all kinds of images, and a broken image is refused in its place."""
    pixels = digits.test_images.numpy()
    path = tmp_path / "0.png"
    path.write_bytes(write_png(pixels[0]))

    def images() -> Iterator[Image]:
        yield path
        with path.open("rb") as file:
            yield file
        yield PIL.Image.fromarray(pixels[0, 0])
        yield b"broken"
        yield from (pixels[0], pixels[0, 0], pixels[0].transpose(1, 2, 0))
        yield np.resize(pixels, (1_100, *pixels.shape[1:]))

    answers = client.try_embed(images())

    assert isinstance(answers.pop(3), BadRequest)
    expected = np.concatenate([eager[[0] * 6], np.resize(eager, (1_100, 2))])
    assert np.stack(answers) == pytest.approx(expected, abs=TOLERANCE)


def test_threads_share_a_client(client: Client, digits: Dataset, eager: np.ndarray) -> None:
    """Threads that share a client each get the answers to their own requests."""
    files = [write_png(image) for image in digits.test_images[:200].numpy()]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(client.embed, files))

    assert np.stack(answers) == pytest.approx(eager[:200], abs=TOLERANCE)


def test_many_at_once_equal_one_at_a_time(client: Client, digits: Dataset) -> None:
    """Many images at once are reconstructed and decoded as they are one at a time."""
    pixels = digits.test_images[:3].numpy()
    files = [write_png(image) for image in pixels]

    alone = [client.reconstruct(file) for file in files]

    for many in (client.reconstruct(files), client.reconstruct(pixels)):
        assert [answer.mse for answer in many] == pytest.approx([a.mse for a in alone], abs=1e-5)
        assert [answer.outlier for answer in many] == [a.outlier for a in alone]
    embeddings = client.embed(pixels)
    decoded = client.decode(embeddings)
    for embedding, image in zip(embeddings, decoded, strict=True):
        assert np.abs(client.decode(embedding).astype(int) - image).max() <= 1


def test_form_of_many_files(service: Running, digits: Dataset, eager: np.ndarray) -> None:
    """All files of one name are embedded, as ``curl -F images=@a -F images=@b`` sends them."""
    files = [("images", ("x.png", write_png(image))) for image in digits.test_images[:3].numpy()]

    reply = requests.post(
        f"{service.url}/predictions/embed", data={"note": "x"}, files=files, timeout=30
    )

    assert reply.status_code == 200
    assert np.array(reply.json()["embeddings"]) == pytest.approx(eager[:3], abs=TOLERANCE)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("files", [True, False])
def test_stock_triton_client(
    service: Running, digits: Dataset, eager: np.ndarray, files: bool, binary: bool
) -> None:
    """NVIDIA's client, unmodified, can embed, reconstruct and decode, and read an error."""
    pixels = digits.test_images[:3].numpy()
    values = np.array([write_png(image) for image in pixels], object) if files else pixels
    tensor = triton.InferInput("images", list(values.shape), "BYTES" if files else "UINT8")
    if files and not binary:
        values = np.array([base64.b64encode(value) for value in values], object)
    tensor.set_data_from_numpy(values, binary_data=binary)
    client = triton.InferenceServerClient(service.url.removeprefix("http://"))

    def ask(endpoint: str, *outputs: str, given: triton.InferInput = tensor) -> triton.InferResult:
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs]
        return client.infer(endpoint, [given], outputs=wanted or None, request_id="mine")

    try:
        answer = ask("embed", "embeddings")
        assert answer.as_numpy("embeddings") == pytest.approx(eager[:3], abs=TOLERANCE)
        assert ("data" in answer.get_output("embeddings")) != binary
        assert answer.get_response()["id"] == "mine"
        assert ask("embed").as_numpy("embeddings") == pytest.approx(eager[:3], abs=TOLERANCE)

        both = ask("reconstruct", "mse", "reconstructions")
        vectors = triton.InferInput("embeddings", [3, 2], "FP32")
        vectors.set_data_from_numpy(answer.as_numpy("embeddings"), binary_data=binary)
        decoded = ask("decode", "images", given=vectors).as_numpy("images")
        remembered = both.as_numpy("reconstructions")
        assert np.abs(decoded.astype(int) - remembered).max() <= 1
        errors = np.square((remembered - pixels.reshape(3, 1, 28, 28) / 1.0) / 255).mean((1, 2, 3))
        assert both.as_numpy("mse") == pytest.approx(errors, abs=1e-4)

        with pytest.raises(triton.InferenceServerException, match="no such output"):
            ask("embed", "magic")
    finally:
        client.close()


def test_garbage_is_refused_and_harms_nobody(client: Client, digits: Dataset) -> None:
    """Garbage gets a 400 that says what it is, and the next request is answered."""
    with pytest.raises(BadRequest, match="can't be read as an image") as refusal:
        client.embed(b"garbage")
    assert (refusal.value.status, refusal.value.type) == (400, "InvalidImage")

    assert client.embed(write_png(digits.test_images[0].numpy())).shape == (2,)


def test_reconstruct_and_decode_agree(client: Client, digits: Dataset) -> None:
    """decode(embed(x)) is reconstruct(x), up to the rounding of one pixel value."""
    file = write_png(digits.test_images[5].numpy())

    answer = client.reconstruct(file)
    decoded = client.decode([client.embed(file)])

    with PIL.Image.open(io.BytesIO(answer.png)) as picture:
        difference = np.asarray(picture).astype(int) - decoded[0, 0]
    assert np.abs(difference).max() <= 1
    assert 0 < answer.mse < 0.1
    assert 0 <= answer.percentile <= 100


def test_nonsense_is_an_outlier(client: Client) -> None:
    """An image of noise is an outlier."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28), np.uint8)

    assert client.reconstruct(write_png(noise)).outlier


def test_health_names_the_model(client: Client, shipped_bundle: Bundle) -> None:
    """The client's health has the digest of the bundle, and the model's version and precision."""
    health = client.health()

    assert health.digest == shipped_bundle.manifest.digest
    assert (health.version, health.precision, health.embedding_width) == ("1.0", "fp32", 2)


def test_plain_http(service: Running, digits: Dataset) -> None:
    """A request without Content-Type, as of curl -T, is a file; a reply may be a picture."""
    file = write_png(digits.test_images[0].numpy())
    session = requests.Session()
    request = requests.Request("POST", f"{service.url}/predictions/embed", data=file).prepare()
    assert "Content-Type" not in request.headers

    assert session.send(request, timeout=10).json().keys() == {"embedding"}

    reply = requests.post(
        f"{service.url}/predictions/reconstruct", file, headers={"Accept": "image/png"}, timeout=10
    )
    assert reply.headers["Content-Type"] == "image/png"
    with PIL.Image.open(io.BytesIO(reply.content)) as picture:
        assert (picture.size, picture.mode) == ((28, 28), "L")


def test_readiness_and_metadata(
    service: Running, shipped_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """The private port and the command for health checks tell the truth about the service."""
    assert service.readiness().json() == {"ready": True, "reason": None}
    assert readiness.main(["--port", str(service.port)]) == 0
    assert readiness.main(["--port", "1024"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ready",
        "not ready: no proper answer from http://127.0.0.1:1027/ready",
    ]
    metadata = requests.get(
        f"http://127.0.0.1:{service.port + 3}/v2/models/embed", timeout=10
    ).json()
    assert metadata["digest"] == shipped_bundle.manifest.digest
    assert read_limits(metadata) == Limits(image_bytes=28 * 28)  # what clients suppose without


def test_metrics_count_what_was_asked(service: Running, client: Client, digits: Dataset) -> None:
    """/metrics counts requests, images, refusals and phases; TorchServe's own metrics follow."""

    def read() -> dict[str, float]:
        text = requests.get(f"http://127.0.0.1:{service.port + 3}/metrics", timeout=10).text
        families = text_string_to_metric_families(text)
        return {
            f"{sample.name}{sorted(sample.labels.values())}": sample.value
            for family in families
            for sample in family.samples
        }

    before = read()
    client.embed(digits.test_images[:40].numpy())
    client.reconstruct(write_png(digits.test_images[0].numpy()))
    with pytest.raises(BadRequest):
        client.embed(b"garbage")
    after = read()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more("pinhole_requests_total['200', 'embed']") >= 1  # a canary may have come along
    assert more("pinhole_requests_total['400', 'embed']") == 1
    assert more("pinhole_images_total['embed']") >= 40
    assert more("pinhole_bad_total['InvalidImage', 'embed']") == 1
    assert more("pinhole_phase_seconds_count['embed', 'infer']") >= 2
    assert more("pinhole_position_count['1']") >= 4
    assert more("pinhole_outside_total[]") == 0  # digits are what the model knows
    assert more("pinhole_percentile_count[]") in (1, 2)  # a canary may have come along
    assert after["pinhole_ready[]"] == 1
    assert any(name.startswith("pinhole_model_info[") for name in after)
    waits = {"torchserve": "ts_queue_latency_microseconds", "granian": "pinhole_wait_seconds_sum"}
    assert any(name.startswith(waits[service.server]) for name in after)


def test_a_request_can_be_followed(service: Running) -> None:
    """The service's log has the caller's id of a request that failed, and its traceparent."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"Content-Type": "image/png", "X-Request-Id": "order-66", "traceparent": trace}

    requests.post(f"{service.url}/predictions/embed", b"broken", headers=headers, timeout=10)

    told = f"replies=order-66:400 traces={trace}"
    assert wait_until(lambda: told in service.log.read_text(), 10)


def test_folder_becomes_parquet(
    service: Running,
    digits: Dataset,
    eager: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command embeds every file, reports the broken one, and exits 1 for it."""
    for index, image in enumerate(digits.test_images.numpy()):
        (tmp_path / f"{index:04}.png").write_bytes(write_png(image))
    (tmp_path / "9999.png").write_bytes(b"broken")
    out = tmp_path / "out.parquet"

    code = main(["embed", str(tmp_path), "--out", str(out), "--url", service.url])

    table = pq.read_table(out)
    count = len(digits.test_images)
    assert code == 1
    assert f"{count} images embedded" in capsys.readouterr().out
    assert len(set(table["path"].to_pylist())) == table.num_rows == count + 1
    assert [row is None for row in table["error"].to_pylist()] == [True] * count + [False]
    embeddings = np.array(table["embedding"].to_pylist()[:count])
    assert embeddings == pytest.approx(eager, abs=TOLERANCE)


def test_ten_thousand_images(service: Running, mnist: Dataset, tmp_path: Path) -> None:
    """MNIST's whole test set as files, through the command, equals eager PyTorch."""
    for index, image in enumerate(mnist.test_images.numpy()):
        (tmp_path / f"{index:05}.png").write_bytes(write_png(image))
    out = tmp_path / "out.parquet"

    assert main(["embed", str(tmp_path), "--out", str(out), "--url", service.url]) == 0

    table = pq.read_table(out)
    assert len(set(table["path"].to_pylist())) == table.num_rows == 10_000
    assert table["error"].null_count == 10_000
    embeddings = np.stack(table["embedding"].to_numpy())
    with torch.inference_mode():
        model = load_checkpoint(SHIPPED).model
        eager = torch.cat([model.encode(batch) for batch in mnist.test_images.split(500)])
    assert embeddings == pytest.approx(eager.numpy(), abs=TOLERANCE)


def test_reconstruct_and_decode_commands(
    service: Running, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands write pictures where they say; a broken file is named, with exit code 1."""
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(write_png(digits.test_images[0].numpy()))
    bad.write_bytes(b"broken")

    assert main(["reconstruct", str(good), str(bad), "--url", service.url]) == 1
    assert (
        main(["decode", "0.5", "-1.2", "--out", str(tmp_path / "d.png"), "--url", service.url]) == 0
    )
    assert main(["decode", "0.5", "--out", str(tmp_path / "e.png"), "--url", service.url]) == 2
    assert main(["health", "--url", service.url]) == 0

    said = capsys.readouterr()
    for name in ("good.reconstruction.png", "d.png"):
        with PIL.Image.open(tmp_path / name) as picture:
            assert picture.size == (28, 28)
        assert name in said.out
    assert "bad.png: " in said.err
    assert "float32[N, 2]" in said.err


@pytest.mark.parametrize("name", ["sample.py", "sample.sh"])
def test_samples_run(service: Running, digits: Dataset, tmp_path: Path, name: str) -> None:
    """The samples for readers work as they stand."""
    file = tmp_path / "digit.png"
    file.write_bytes(write_png(digits.test_images[0].numpy()))
    sample = Path(__file__).parents[2] / "clients" / "examples" / name
    program = sys.executable if name.endswith(".py") else "bash"

    done = subprocess.run(
        [program, sample, file, service.url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "embedding" in done.stdout
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "digit.png",
        "reconstruction.png",
        "decoded.png",
    }
