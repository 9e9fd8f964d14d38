"""Train steps of normflows' residual flow, for benchmarks/residual.py: steps in, seconds out.

Needs torch and normflows alone. python normflows_residual.py SIZE
"""

import sys
import time

import normflows as nf  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]

BLOCKS, HIDDEN, BATCH, COEFFICIENT, ITERATIONS = 16, [128] * 3, 256, 0.98, 5


def main(size: int) -> None:
    """Answers each line of numbers until there are no more."""
    torch.manual_seed(0)
    flows = []
    for _ in range(BLOCKS):
        net = nf.nets.LipschitzMLP(
            [size, *HIDDEN, size],
            lipschitz_const=COEFFICIENT,
            max_lipschitz_iter=ITERATIONS,
            lipschitz_tolerance=None,
            init_zeros=False,
        )
        # 2 terms for certain and, by the geometric law, 2 more on average.
        flows += [nf.flows.Residual(net, reduce_memory=True), nf.flows.ActNorm(size)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(size, trainable=False), flows)
    y = torch.randn(BATCH, size)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            optimizer.zero_grad()
            loss = model.forward_kld(y)
            loss.backward()
            optimizer.step()
            nf.utils.update_lipschitz(model, ITERATIONS)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
