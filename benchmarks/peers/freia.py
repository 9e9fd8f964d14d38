"""FrEIA."""

import math
from typing import Any

import FrEIA.framework as framework  # type: ignore[import-not-found]
import FrEIA.modules as modules  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]

from benchmarks.peers.cases import Case
from benchmarks.peers.with_torch import DEVICE, Parts, conv_net, examples, programs
from benchmarks.peers.worker import serve


def _glow(case: Case) -> Any:
    height, width, channels = case.shape
    nodes, ends = [framework.InputNode(channels, height, width, name="image")], []

    def add(before: Any, kind: Any, options: dict[str, Any]) -> Any:
        nodes.append(framework.Node(before, kind, options))
        return nodes[-1]

    net = lambda inputs, outputs: conv_net(inputs, outputs, case.hidden[0])  # noqa: E731
    last: Any = nodes[0]
    for level in range(3):
        last = add(last, modules.IRevNetDownsampling, {})
        for _ in range(case.layers):
            options = {"subnet_constructor": net, "permute_soft": True}
            last = add(last, modules.AllInOneBlock, options)
        if level < 2:
            split = add(last, modules.Split, {})
            ends.append(framework.OutputNode(split.out1))
            last = split.out0
    return framework.GraphINN([*nodes, *ends, framework.OutputNode(last)])


def setup(case: Case, variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `serve` wants it."""
    torch.manual_seed(0)
    model = _glow(case)
    with torch.no_grad():
        shapes = [z.shape[1:] for z in model(examples(case).cpu())[0]]

    def log_prob(y: Any) -> Any:
        latents, log_det = model(y)
        sizes = sum(z[0].numel() for z in latents)
        squares = sum(z.square().flatten(1).sum(1) for z in latents)
        return -0.5 * squares - 0.5 * sizes * math.log(2 * math.pi) + log_det

    def sample(count: int) -> Any:
        return model([torch.randn(count, *shape, device=DEVICE) for shape in shapes], rev=True)[0]

    # Two simplifications of its own: nothing to learn in the mixing, no data-dependent start.
    note = "AllInOneBlock: a FIXED rotation in place of the 1x1 convolution, affine by constants"
    return programs(case, Parts(model, log_prob, sample, note))


if __name__ == "__main__":
    serve(setup)
