"""normflows."""

from typing import Any

import normflows as nf  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]
from normflows.flows.neural_spline.coupling import (  # type: ignore[import-not-found]
    PiecewiseRationalQuadraticCoupling,
)

from benchmarks.peers import cases
from benchmarks.peers.cases import Case
from benchmarks.peers.with_torch import Parts, mlp, programs
from benchmarks.peers.worker import serve


def _glow(case: Case) -> Any:
    height, width, channels = case.shape
    bases, merges, levels = [], [], []
    for i in range(3):  # 0 is the deepest
        depth = 2 ** (3 - i)
        wide = channels * 2 ** (4 - i)
        blocks = [
            nf.flows.GlowBlock(wide, case.hidden[0], split_mode="channel", scale=True)
            for _ in range(case.layers)
        ]
        levels.append([*blocks, nf.flows.Squeeze()])
        if i > 0:
            merges.append(nf.flows.Merge())
        kept = wide if i == 0 else wide // 2
        shape = (kept, height // depth, width // depth)
        bases.append(nf.distributions.DiagGaussian(shape, trainable=False))
    return nf.MultiscaleFlow(bases, levels, merges, class_cond=False)


def _layer(case: Case, i: int) -> list[Any]:
    features, hidden = case.shape[0], case.hidden
    if case.kind == "maf":
        layer = nf.flows.MaskedAffineAutoregressive(
            features, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False,
            activation=torch.nn.functional.relu,
        )  # fmt: skip
        # Reversed, so that densities are the fast direction.
        return [nf.flows.base.Reverse(layer), nf.flows.Permute(features)]
    layer = nf.flows.CoupledRationalQuadraticSpline(features, 1, 1, num_bins=cases.BINS)
    # The same work as the others: a plain network, no spline on the half that conditions.
    layer.prqct = PiecewiseRationalQuadraticCoupling(
        mask=nf.utils.masks.create_alternating_binary_mask(features, even=bool(i % 2)),
        transform_net_create_fn=lambda inputs, outputs: mlp(inputs, outputs, hidden),
        num_bins=cases.BINS, tails="linear", tail_bound=cases.BOUND,
        apply_unconditional_transform=False,
    )  # fmt: skip
    return [layer]


def setup(case: Case, variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `serve` wants it."""
    torch.manual_seed(0)
    if case.kind == "glow":
        model = _glow(case)
        note = "GlowBlock, 1x1 convolution by LU"
        log_prob = lambda y: model.log_prob(y, None)  # noqa: E731
    else:
        layers = [part for i in range(case.layers) for part in _layer(case, i)]
        base = nf.distributions.DiagGaussian(case.shape[0], trainable=False)
        model = nf.NormalizingFlow(base, layers)
        note = "MADE without residual blocks" if case.kind == "maf" else "plain networks"
        log_prob = model.log_prob
    return programs(case, Parts(model, log_prob, lambda count: model.sample(count)[0], note))


if __name__ == "__main__":
    serve(setup)
