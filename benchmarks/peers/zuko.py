"""zuko; as the variant "compile", its log_prob by torch.compile."""

from functools import partial
from typing import Any

import torch  # type: ignore[import-not-found]
import zuko  # type: ignore[import-not-found]

from benchmarks.peers import cases
from benchmarks.peers.cases import Case
from benchmarks.peers.with_torch import Parts, programs
from benchmarks.peers.worker import Program, serve


def build(case: Case) -> Any:
    """Its own recipes."""
    features, options = case.shape[0], {"transforms": case.layers, "hidden_features": case.hidden}
    if case.kind == "maf":
        return zuko.flows.MAF(features, **options)
    # NICE is its coupling flow; any univariate transform goes into it.
    spline = partial(zuko.transforms.MonotonicRQSTransform, bound=cases.BOUND)
    shapes = [(cases.BINS,), (cases.BINS,), (cases.BINS - 1,)]
    return zuko.flows.NICE(features, univariate=spline, shapes=shapes, **options)


def setup(case: Case, variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `serve` wants it."""
    torch.manual_seed(0)
    flow = build(case)

    def log_prob(y: Any) -> Any:
        return flow().log_prob(y)

    if variant == "compile":
        log_prob = torch.compile(log_prob)
    note = "its recipe, torch.compile" if variant else "its recipe"
    parts = Parts(flow, log_prob, lambda count: flow().sample((count,)), note)
    makers, about = programs(case, parts)
    makers["fit"] = lambda: _fit(case)
    return makers, about


def _fit(case: Case) -> Program:
    """The loop of its documentation, with validation and the best parameters kept."""
    rows = torch.from_numpy(cases.table(case))
    held_out = int(cases.VALIDATION * len(rows))

    def once() -> None:
        flow = build(case)
        optimizer = torch.optim.Adam(flow.parameters(), lr=cases.LEARNING_RATE, fused=True)
        mixed = rows[torch.randperm(len(rows))]
        data = torch.utils.data.TensorDataset(mixed[held_out:])
        loader = torch.utils.data.DataLoader(data, case.batch, shuffle=True, drop_last=True)
        best = None
        for _ in range(2):
            for (y,) in loader:
                optimizer.zero_grad()
                loss = -flow().log_prob(y).mean()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                parts = mixed[:held_out].split(case.batch)
                total = sum(float(flow().log_prob(y).sum()) for y in parts)
            if best is None or total > best[0]:
                best = total, {k: v.clone() for k, v in flow.state_dict().items()}

    return once


if __name__ == "__main__":
    serve(setup)
