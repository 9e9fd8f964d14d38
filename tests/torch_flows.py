"""Flows of zuko, nflows and normflows, and what their states and densities are.

python -m tests.torch_flows          # writes tests/saved_states, where these are installed
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STATES = Path(__file__).parent / "saved_states"


class Case(NamedTuple):
    """A flow of another library.

    Attributes:
      module: it, perturbed.
      reader: of `jflow.interop.weights`.
      context: its width.
      options: of the reader.
      wrong: options that the module must contradict.
    """

    module: Any
    reader: str
    context: int = 0
    options: dict[str, Any] = {}  # noqa: RUF012
    wrong: dict[str, Any] = {}  # noqa: RUF012


def names() -> list[str]:
    """Of all cases."""
    return sorted(path.stem for path in STATES.glob("*.npz"))


def cases() -> dict[str, Case]:
    """All of them, freshly made."""
    import torch

    torch.manual_seed(0)
    found = _zuko() | _nflows() | _normflows()
    for case in found.values():
        case.module.eval()
        with torch.no_grad():
            for param in case.module.parameters():
                param += 0.1 * torch.randn_like(param)
    return found


def log_prob(case: Case, y: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """log p by the other library, in float64."""
    import torch

    module = case.module.double()
    y, c = (None if a is None else torch.tensor(a) for a in (y, context))
    with torch.no_grad():
        if case.reader == "from_zuko":
            found = module(c).log_prob(y)
        else:
            found = module.log_prob(y) if c is None else module.log_prob(y, c)
    return found.numpy()


def _zuko() -> dict[str, Case]:
    import torch
    from zuko import flows

    small = {"hidden_features": (8, 8)}
    maf = flows.MAF(3, 2, transforms=2, randperm=True, **small)
    residual = flows.MAF(3, 0, transforms=2, residual=True, activation=torch.nn.ELU, **small)
    real_nvp = flows.RealNVP(3, 2, transforms=3, normalize=True, **small)
    nsf = flows.NSF(3, 0, transforms=2, bins=5, passes=2, **small)
    elu = {"activation": "elu"}
    gelu = flows.MAF(3, 0, transforms=2, activation=torch.nn.GELU, **small)
    return {
        "zuko_maf_gelu": Case(gelu, "from_zuko", 0, {"activation": "gelu"}, {"activation": "relu"}),
        "zuko_maf": Case(maf, "from_zuko", 2, wrong={"slope": 0.3}),
        "zuko_maf_residual": Case(residual, "from_zuko", 0, elu, {"activation": "tanh"}),
        "zuko_real_nvp": Case(real_nvp, "from_zuko", 2, wrong=elu),
        "zuko_nsf": Case(nsf, "from_zuko", 0, wrong={"bound": 3.0}),
    }


def _nflows() -> dict[str, Case]:
    from nflows import transforms as t
    from nflows.distributions.normal import DiagonalNormal, StandardNormal
    from nflows.flows import MaskedAutoregressiveFlow, SimpleRealNVP
    from nflows.flows.base import Flow
    from nflows.nn.nets import ResidualNet

    maf = MaskedAutoregressiveFlow(3, 8, 2, 1, use_random_permutations=True)
    plain = [t.ReversePermutation(3), t.MaskedAffineAutoregressiveTransform(3, 8, 2)]
    with_context = [
        t.RandomPermutation(3),
        t.MaskedAffineAutoregressiveTransform(3, 8, 2, use_residual_blocks=False),
    ]
    composed = Flow(t.CompositeTransform(plain + with_context), StandardNormal([3]))
    splines = {"tails": "linear", "tail_bound": 3.0, "num_bins": 5}
    masked = t.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
    coupled = t.PiecewiseRationalQuadraticCouplingTransform

    def net(inputs: int, outputs: int) -> Any:
        return ResidualNet(inputs, outputs, 8, context_features=2)

    parts = [
        t.LULinear(3),
        masked(3, 8, context_features=2, **splines),
        t.RandomPermutation(3),
        coupled([1, 0, 1], net, apply_unconditional_transform=True, **splines),
    ]
    nsf = Flow(t.CompositeTransform(parts), DiagonalNormal([3]))
    return {
        "nflows_maf": Case(maf, "from_nflows", wrong={"activation": "tanh"}),
        "nflows_maf_context": Case(composed, "from_nflows", 2, wrong={"activation": "elu"}),
        "nflows_nsf": Case(nsf, "from_nflows", 2, {"tail_bound": 3.0}, {"tail_bound": 2.0}),
        "nflows_real_nvp": Case(SimpleRealNVP(3, 8, 2, 1), "from_nflows", wrong={}),
    }


def _normflows() -> dict[str, Case]:
    import torch
    from normflows import ConditionalNormalizingFlow, NormalizingFlow, flows
    from normflows.distributions import DiagGaussian
    from normflows.nets import MLP

    blocks = [
        part
        for _ in range(2)
        for part in (
            flows.AffineCouplingBlock(MLP([2, 8, 2]), scale_map="sigmoid"),
            flows.Permute(3, mode="swap"),
        )
    ]
    mask = torch.tensor([1.0, 0.0, 1.0])
    masked = [flows.MaskedAffineFlow(mask, MLP([3, 8, 3]), MLP([3, 8, 3])), flows.ActNorm(3)]
    masked[1].data_dep_init_done.fill_(1.0)
    maf = [flows.MaskedAffineAutoregressive(3, 8, 2), flows.Permute(3, mode="shuffle")]
    spline = {"num_context_channels": 2, "num_bins": 5}
    nsf = [
        flows.CoupledRationalQuadraticSpline(3, 1, 8, **spline),
        flows.LULinearPermute(3),
        flows.AutoregressiveRationalQuadraticSpline(3, 1, 8, **spline),
    ]
    sigmoid, exp = {"scale_map": "sigmoid", "layers": 4}, {"scale_map": "exp"}
    return {
        "normflows_real_nvp": Case(
            NormalizingFlow(DiagGaussian(3), blocks), "from_normflows", 0, sigmoid, exp
        ),
        "normflows_masked": Case(NormalizingFlow(DiagGaussian(3), masked), "from_normflows"),
        "normflows_maf": Case(
            ConditionalNormalizingFlow(DiagGaussian(3), maf), "from_normflows", 2,
            wrong={"activation": "elu"},
        ),
        "normflows_nsf": Case(
            ConditionalNormalizingFlow(DiagGaussian(3), nsf), "from_normflows", 2,
            wrong={"tail_bound": 2.0},
        ),
    }  # fmt: skip


def main() -> None:
    """Writes the states and densities of all cases."""
    STATES.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name, case in cases().items():
        y = 1.5 * rng.normal(size=(50, 3))
        context = rng.normal(size=(50, case.context)) if case.context else None
        p = log_prob(case, y, context)
        state = {n: a.detach().numpy() for n, a in case.module.state_dict().items()}
        arrays = {f"state/{n}": a for n, a in state.items()} | {"y": y, "log_prob": p}
        told = json.dumps({"reader": case.reader, "options": case.options})
        if context is not None:
            arrays["context"] = context
        np.savez_compressed(STATES / f"{name}.npz", told=told, **arrays)


if __name__ == "__main__":
    main()
