"""The programs of a library in PyTorch, given a module and its log_prob and sample.

In the environment, BENCH_DEVICE=cuda runs them on a GPU, and BENCH_PRECISION=tf32 or bfloat16
(autocast) takes the place of float32 there.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch  # type: ignore[import-not-found]

from benchmarks.peers.cases import LEARNING_RATE, Case, batch
from benchmarks.peers.worker import Program

DEVICE = torch.device(os.environ.get("BENCH_DEVICE", "cpu"))
PRECISION = os.environ.get("BENCH_PRECISION", "float32")
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = PRECISION == "tf32"


class Parts(NamedTuple):
    """A flow.

    Attributes:
      module: it owns the parameters.
      log_prob: y to (batch,).
      sample: count to examples.
      note: how it was set up.
    """

    module: Any
    log_prob: Callable[..., Any]
    sample: Callable[..., Any]
    note: str


def examples(case: Case) -> Any:
    """The batch; images are channels, height, width."""
    y = torch.from_numpy(batch(case))
    return (y.permute(0, 3, 1, 2).contiguous() if y.ndim == 4 else y).to(DEVICE)


def _finished() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _precisely() -> Any:
    on = PRECISION == "bfloat16"
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=on)


def programs(case: Case, parts: Parts) -> tuple[dict[str, Callable[[], Program]], dict[str, Any]]:
    """Makers of the programs, and what there is to tell."""
    y = examples(case)
    parts.module.to(DEVICE)
    count = sum(p.numel() for p in parts.module.parameters() if p.requires_grad)
    about = {"parameters": count, "note": parts.note, "version": f"torch {torch.__version__}"}

    def log_prob() -> Program:
        return _without_grad(parts, lambda: parts.log_prob(y))

    def sample() -> Program:
        return _without_grad(parts, lambda: parts.sample(case.batch))

    makers = {
        "train": lambda: train(parts, y),
        "log_prob": log_prob,
        "sample": sample,
        "per example": lambda: _per_example(parts, y, about),
    }
    return makers, about


def train(parts: Parts, y: Any) -> Program:
    """One step by Adam, in torch's fastest form."""
    chosen = [p for p in parts.module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(chosen, lr=LEARNING_RATE, fused=True)

    def once() -> None:
        parts.module.train()
        optimizer.zero_grad(set_to_none=True)
        with _precisely():
            loss = -parts.log_prob(y).mean()
        loss.backward()
        optimizer.step()
        _finished()
        if not torch.isfinite(loss):
            raise FloatingPointError("the loss is not finite")

    return once


def _without_grad(parts: Parts, run: Callable[[], Any]) -> Program:
    def once() -> None:
        parts.module.eval()
        with torch.no_grad(), _precisely():
            run()
        _finished()

    return once


def _per_example(parts: Parts, y: Any, about: dict[str, Any]) -> Program:
    whole = _LogProb(parts)
    chosen = {k: p.detach() for k, p in whole.named_parameters() if p.requires_grad}

    def norm(params: Any, row: Any) -> Any:
        def log_prob(params: Any) -> Any:
            return torch.func.functional_call(whole, params, (row[None],)).sum()

        grads = torch.func.grad(log_prob)(params)
        return torch.stack([g.norm() for g in grads.values()]).norm()

    every = torch.func.vmap(norm, (None, 0))
    try:
        every(chosen, y)
        return lambda: every(chosen, y)
    except RuntimeError:
        # vmap stops at code that depends on values, such as indexing by masks.
        about["note"] += "; example by example, since torch.func.vmap refuses it"
        return lambda: [norm(chosen, row) for row in y]


class _LogProb(torch.nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.module, self.log_prob = parts.module, parts.log_prob

    def forward(self, y: Any) -> Any:
        return self.log_prob(y)


def mlp(inputs: int, outputs: int, hidden: tuple[int, ...]) -> Any:
    """A plain network with ReLU, which ignores a context."""
    widths = (inputs, *hidden)
    layers: list[Any] = []
    for i in range(len(hidden)):
        layers += [torch.nn.Linear(widths[i], widths[i + 1]), torch.nn.ReLU()]
    return WithoutContext(torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], outputs)))


def conv_net(inputs: int, outputs: int, hidden: int) -> Any:
    """The network of the Glow paper: 3x3, 1x1, 3x3, the last one zero."""
    conv = torch.nn.Conv2d
    last = conv(hidden, outputs, 3, padding=1)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    relu = torch.nn.ReLU
    first = conv(inputs, hidden, 3, padding=1)
    return WithoutContext(torch.nn.Sequential(first, relu(), conv(hidden, hidden, 1), relu(), last))


class WithoutContext(torch.nn.Module):
    """A network that is given a context, and ignores it."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any, context: Any = None) -> Any:
        """The network's output."""
        return self.net(x)
