"""The autoencoder: pixels → 2 numbers → pixels, in eight convolutions.

In this module, as in the papers, the embedding is called ``z``. Pixels enter as uint8, and the
encoder itself scales them to [0, 1], so training and the exported graph can't disagree.
"""

# If you change the decoder, change export/rewrite.py too: it builds the same decoder from plain
# convolutions, and refuses a decoder with other layers. If you change something that decides the
# answers but shows neither in the names and shapes of the weights nor in a LeakyReLU's slope (a
# stride, say), make model_digest in export/__main__.py tell the two networks apart.

import torch
from torch import Tensor, nn

from train.config import TrainConfig


def halved(size: int) -> int:
    """Side of the grid after a convolution of kernel 3, stride 2 and padding 1."""
    return (size + 1) // 2


def to_unit_range(images: Tensor) -> Tensor:
    """uint8[...] in 0..255 → float32[...] in [0, 1]."""
    return images.float() / 255


def to_pixels(images: Tensor) -> Tensor:
    """float32[...] in [0, 1] → uint8[...], rounded."""
    return (images * 255).round().to(torch.uint8)


class Encoder(nn.Module):
    """uint8[N, C, H, W] → float32[N, D]: four convolutions, then one linear layer."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        channels, slope = config.hidden_dim, config.leaky_relu
        grid = halved(halved(config.image_size))
        self.convolutions = nn.Sequential(
            nn.Conv2d(config.input_dim, channels, 3, stride=1, padding=1),
            nn.LeakyReLU(slope),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),  # H → H/2
            nn.LeakyReLU(slope),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),  # H/2 → H/4
            nn.LeakyReLU(slope),
            nn.Conv2d(channels, channels, 3, stride=1, padding=1),
            nn.LeakyReLU(slope),
        )
        self.to_embedding = nn.Linear(channels * grid * grid, config.output_dim)

    def features(self, images: Tensor) -> Tensor:
        """The convolutions' output: float[N, F], F = hidden_dim · H/4 · W/4."""
        features: Tensor = self.convolutions(to_unit_range(images))
        return features.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Embed."""
        z: Tensor = self.to_embedding(self.features(images))
        return z.float()


class Decoder(nn.Module):
    """float32[N, D] → float32[N, C, H, W] in [0, 1]: the encoder's layers, mirrored.

    There is no LeakyReLU before the sigmoid: a LeakyReLU would scale negative logits by 0.01, and
    almost every pixel of a digit is background. export/rewrite.py rewrites these layers.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        channels, slope, size = config.hidden_dim, config.leaky_relu, config.image_size
        half, grid = halved(size), halved(halved(size))
        self.image_size = size
        self.from_embedding = nn.Linear(config.output_dim, channels * grid * grid)
        self.unflatten = nn.Unflatten(1, (channels, grid, grid))
        self.convolutions = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 3, stride=1, padding=1),
            nn.LeakyReLU(slope),
            doubling(channels, grid, half),
            nn.LeakyReLU(slope),
            doubling(channels, half, size),
            nn.LeakyReLU(slope),
            nn.ConvTranspose2d(channels, config.input_dim, 3, stride=1, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Decode."""
        logits: Tensor = self.convolutions(self.unflatten(self.from_embedding(z)))
        return logits.float().sigmoid()  # in float32: bf16 would round away the faint pixels


def doubling(channels: int, size: int, target: int) -> nn.ConvTranspose2d:
    """A stride-2 transposed convolution from ``size`` to ``target`` (= 2·size or 2·size − 1)."""
    return nn.ConvTranspose2d(
        channels, channels, 3, stride=2, padding=1, output_padding=target - (2 * size - 1)
    )


class Autoencoder(nn.Module):
    """An encoder and a decoder that are trained together.

    ``config`` gives the images' channels C and side, the channels between the convolutions, the
    slope of every LeakyReLU and the width D of the embedding. With ``config.model`` ``vae`` the
    encoder has a second linear layer for the spread of the embedding (Kingma & Welling 2014). Only
    training uses the spread: the embedding is the mean.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        mean = self.encoder.to_embedding
        self.to_log_variance = (
            nn.Linear(mean.in_features, mean.out_features) if config.model == "vae" else None
        )

    def forward(self, images: Tensor) -> Tensor:
        """uint8[N, C, H, W] → their reconstructions, float32[N, C, H, W] in [0, 1]."""
        reconstructions: Tensor = self.decoder(self.encoder(images))
        return reconstructions

    @torch.jit.export
    def encode(self, images: Tensor) -> Tensor:
        """uint8[N, C, H, W] → embeddings, float32[N, D]."""
        z: Tensor = self.encoder(images)
        return z

    @torch.jit.export
    def decode(self, z: Tensor) -> Tensor:
        """float32[N, D] → images, float32[N, C, H, W] in [0, 1]."""
        images: Tensor = self.decoder(z)
        return images
