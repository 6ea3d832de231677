"""The network `conv`, bridged or not, and its training step in PyTorch, as fast as it is on CPUs, for `bench-train`.

As `images.deep`: the same layers, loss, augmentation and AdamW with the same schedule. Convolutions are oneDNN's on
channels-last tensors; the border of all images is mirrored once, so that a batch of shifted ones is one gather. Tried
and slower: channels first, AdamW over lists, torch.compile, kept memory (`harness.memory`). In bfloat16 it is
torch.autocast's: convolutions and products, with weights and statistics in float32.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn


class ConvNetwork(nn.Module):  # type: ignore[misc]
    """`images.deep.networks.ConvNetwork` for images (N, 3, H, W) that are scaled already."""

    def __init__(
        self,
        num_classes: int,
        filters: int,
        size: int,
        stride: int,
        widths: Sequence[int],
        pools: Sequence[int],
        bridged: bool,
    ) -> None:
        super().__init__()
        self.bridged = bridged
        # What "SAME" is where the stride divides the image's side.
        self.first = nn.Conv2d(3, filters, size, stride, padding=(size - stride) // 2)
        self.blocks, channels = nn.ModuleList(), 2 * filters
        for width, pool in zip(widths, pools, strict=True):
            pooled = [nn.MaxPool2d(pool)] if pool > 1 else []
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            self.blocks.append(nn.Sequential(convolution, *pooled, nn.BatchNorm2d(width), nn.ReLU(inplace=True)))
            channels = width
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes)."""
        x = self.first(x)
        x = torch.relu(torch.cat([x, -x], 1))
        for block in self.blocks:
            y = block(x)
            x = x + y if self.bridged and x.shape == y.shape else y
        return self.head(x.mean((2, 3)))


def assign(network: ConvNetwork, params: Mapping[str, Any]) -> None:
    """Takes over flax's parameters of the same network: kernels (h, w, in, out) become (out, in, h, w)."""
    pairs = [(network.first.weight, params["first"]["kernel"]), (network.first.bias, params["first"]["bias"])]
    for number, block in enumerate(network.blocks):
        given = params[f"block{number}"]
        pairs += [(block[0].weight, given["conv"]["kernel"])]
        pairs += [(block[-2].weight, given["norm"]["scale"]), (block[-2].bias, given["norm"]["bias"])]
    pairs += [(network.head.weight, params["head"]["kernel"]), (network.head.bias, params["head"]["bias"])]
    with torch.no_grad():
        for parameter, value in pairs:
            axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(value.ndim, (0,))
            parameter.copy_(torch.from_numpy(np.transpose(value, axes).copy()))


def scaled(images: torch.Tensor) -> torch.Tensor:
    """uint8 pixels (N, H, W, 3) as numbers (N, 3, H, W) near zero, their channels last in memory."""
    return images.permute(0, 3, 1, 2).to(torch.float32).sub_(120.0).div_(64.0)


class Training:
    """Steps of `images.deep.recipe` on data in memory; the rate is that of a run of `length` steps.

    recipe: the fields of `Recipe`. Batches, shifts and flips are drawn as there, by another generator.
    """

    def __init__(
        self,
        network: ConvNetwork,
        images: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        recipe: Mapping[str, Any],
        length: int,
        dtype: str,
        seed: int,
    ) -> None:
        self.low = dtype == "bfloat16"
        self.network, self.recipe, self.length = network.to(memory_format=torch.channels_last).train(), recipe, length
        torch.manual_seed(seed)
        edge, side = recipe["shift"], images.shape[1]
        padded = torch.from_numpy(np.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect"))
        # (N, 2 edge + 1, 2 edge + 1, H, W, 3): every window of every image, without a copy.
        self.windows = padded.unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3)
        self.labels = torch.from_numpy(labels).long()
        self.sides = torch.randint(0, 2, labels.shape)
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe["smoothing"])
        parameters = list(network.parameters())
        kernels, others = ([p for p in parameters if (p.ndim > 1) == kernel] for kernel in (True, False))
        groups = [{"params": kernels, "weight_decay": recipe["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.step, self.order = 0, torch.arange(len(labels))
        self.rows = self.order[:0]

    def run(self, steps: int) -> float:
        """The seconds of this many steps, all they do counted."""
        start, losses = time.perf_counter(), []
        for _ in range(steps):
            images, labels = self.batch()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
                logits = self.network(images)
            value = self.loss(logits.float(), labels)
            self.update(value)
            losses.append(value.detach())
        torch.stack(losses).tolist()
        return time.perf_counter() - start

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next images, shifted and mirrored, and their labels."""
        size, edge = self.recipe["batch_size"], self.recipe["shift"]
        epoch, place = divmod(self.step, len(self.labels) // size)
        if place == 0:
            self.order = torch.randperm(len(self.labels))
        self.rows = rows = self.order[place * size : (place + 1) * size]
        corners = torch.randint(0, 2 * edge + 1, (2, size))
        images = self.windows[rows, corners[0], corners[1]]
        if self.recipe["flip"]:
            mirrored = ((self.sides[rows] + epoch) % 2 == 1)[:, None, None, None]
            images = torch.where(mirrored, images.flip(2), images)
        return scaled(images), self.labels[rows]

    def update(self, value: torch.Tensor) -> None:
        """A step of the optimizer down the gradient of this loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        self.optimizer.step()
        self.step += 1

    def _rate(self) -> float:
        """Up in a line from `first` of the peak, then down in one to `last` of it."""
        peak, first, last = (self.recipe[name] for name in ("peak", "first", "last"))
        rise = max(1, round(self.recipe["warmup"] * self.length))
        if self.step < rise:
            return peak * (first + (1 - first) * self.step / rise)
        return peak * (1 + (last - 1) * min((self.step - rise) / max(1, self.length - rise - 1), 1.0))
