"""The runner over HTTP: which requests carry a chunk's images, and what becomes of each image."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pinhole import ServerError
from pinhole.jobs.errors import Fault, JobError
from pinhole.jobs.rows import Answer

from .services import FakeClient, numbers, open_runner


def test_one_request_for_a_chunk(said: list[str]) -> None:
    """Answers are in order; a broken file has its fault in its place."""
    client = FakeClient()

    answers = open_runner(client, said).embed([b"a", b"-", b"ccc"])

    assert numbers(answers) == [1, "InvalidImage", 3]
    assert client.calls == [3]


def test_arrays_travel_as_arrays(said: list[str]) -> None:
    """Pixels are sent as one array; an array of another size than the model's ends the job."""
    client = FakeClient()
    runner = open_runner(client, said)

    assert numbers(runner.embed([np.full((1, 2, 2), 7, np.uint8)] * 3)) == [7, 7, 7]
    assert client.calls == [3]
    with pytest.raises(JobError, match=r"refuses the source's arrays: .*uint8\[N, 1, 2, 2\]"):
        runner.embed([np.zeros((1, 3, 3), np.uint8)])


def test_scores_come_along(said: list[str]) -> None:
    """Embedding and scores are one request; what lies outside is an outlier, whatever its rank."""
    client = FakeClient()
    runner = open_runner(client, said, score=0.5)

    answers = [*runner.embed([b"four", b"-", b"12345678", b"1"]), *runner.embed([b"four"])]

    found = [each for each in answers if isinstance(each, Answer)]
    assert [each.mse for each in found] == [0.5, 1, 0.125, 0.5]
    assert [each.percentile for each in found] == [0.4, 0.8, 0.1, 0.4]
    assert [each.outlier for each in found] == [False, True, True, False]
    assert client.calls == [4, 1]


def test_file_that_breaks_the_service_is_found(said: list[str]) -> None:
    """A request on which the service fails is cut in two, down to the guilty file."""

    def trouble(files: Sequence[bytes]) -> None:
        if b"bomb" in files:
            raise ServerError("worker died")

    class Fragile(FakeClient):
        def embed(self, image: bytes | NDArray[np.uint8]) -> NDArray[np.float32]:
            if isinstance(image, bytes):
                self.trouble([image])
            return super().embed(image)

    answers = open_runner(Fragile(trouble), said).embed([b"a", b"bb", b"bomb", b"dddd", b"eeeee"])

    assert numbers(answers) == [1, 2, "ServerError", 4, 5]


@pytest.mark.parametrize("answer", [[1, 2, 3], [1, np.nan], [1, np.inf]])
def test_what_is_no_embedding_fails_its_row(said: list[str], answer: list[float]) -> None:
    """A model that overflows, or a proxy that answers for it, leaves an error and no numbers."""

    class Odd(FakeClient):
        def embed(self, image: bytes | NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.array(answer, np.float32)

    fault = "the service's answer isn't an embedding of 2 finite numbers"
    assert open_runner(Odd(), said).embed([b"x"]) == [Fault("ServerError", fault)]


def test_the_width_is_the_models(said: list[str]) -> None:
    """Digest, precision and width come from the service."""
    model = open_runner(FakeClient(), said).model

    assert (model.digest, model.precision, model.width) == ("digest", "fp32", 2)


def test_service_that_hides_its_model_is_refused(said: list[str]) -> None:
    """Two models without digests couldn't be told apart, and their rows would be mixed."""
    client = FakeClient()
    client.digest = ""

    with pytest.raises(JobError, match="X-Model-Digest"):
        open_runner(client, said)
