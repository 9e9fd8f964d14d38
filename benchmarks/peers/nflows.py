"""nflows."""

from typing import Any

import torch  # type: ignore[import-not-found]
from nflows import transforms  # type: ignore[import-not-found]
from nflows.distributions.normal import StandardNormal  # type: ignore[import-not-found]
from nflows.flows.base import Flow  # type: ignore[import-not-found]

from benchmarks.peers import cases
from benchmarks.peers.cases import Case
from benchmarks.peers.with_torch import Parts, conv_net, mlp, programs
from benchmarks.peers.worker import serve


def _glow(case: Case) -> Any:
    height, width, channels = case.shape
    shape = (channels, height, width)
    whole = transforms.MultiscaleCompositeTransform(num_transforms=3)
    for _ in range(3):
        squeeze = transforms.SqueezeTransform()
        shape = squeeze.get_output_shape(*shape)
        mask = (torch.arange(shape[0]) < shape[0] // 2).float()
        steps = [squeeze]
        for _ in range(case.layers):
            steps += [
                transforms.ActNorm(shape[0]),
                transforms.OneByOneConvolution(shape[0]),
                transforms.AffineCouplingTransform(
                    mask, lambda inputs, outputs: conv_net(inputs, outputs, case.hidden[0])
                ),
            ]
        shape = whole.add_transform(transforms.CompositeTransform(steps), shape) or shape
    return whole


def _layer(case: Case, i: int) -> list[Any]:
    features, hidden = case.shape[0], case.hidden
    if case.kind == "maf":
        layer = transforms.MaskedAffineAutoregressiveTransform(
            features, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False
        )
        return [transforms.ReversePermutation(features), layer]
    return [
        transforms.PiecewiseRationalQuadraticCouplingTransform(
            mask=(torch.arange(features) % 2 == i % 2).float(),
            transform_net_create_fn=lambda inputs, outputs: mlp(inputs, outputs, hidden),
            num_bins=cases.BINS,
            tails="linear",
            tail_bound=cases.BOUND,
        )
    ]


def setup(case: Case, variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `serve` wants it."""
    torch.manual_seed(0)
    if case.kind == "glow":
        whole, size = _glow(case), case.shape[0] * case.shape[1] * case.shape[2]
        note = "actnorm, 1x1 convolution by LU with a fixed permutation, affine coupling"
    else:
        layers = [part for i in range(case.layers) for part in _layer(case, i)]
        whole, size = transforms.CompositeTransform(layers), case.shape[0]
        note = "MADE without residual blocks" if case.kind == "maf" else "plain networks"
    flow = Flow(whole, StandardNormal((size,)))
    return programs(case, Parts(flow, flow.log_prob, flow.sample, note))


if __name__ == "__main__":
    serve(setup)
