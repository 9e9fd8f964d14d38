"""Causal transformers: samples with a memory, compile times, and PyTorch beside.

python -m benchmarks.attention [samples] [compile] [torch]
"""

import sys
import time
from functools import partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

import jflow
from benchmarks.timing import interleaved, print_table
from jflow import bijectors as jb
from jflow import nets
from jflow import transformers as jt

TOKENS, FEATURES, WIDTH, LAYERS, HEADS, BATCH = 256, 12, 128, 4, 4, 8
SWEEPS, BLOCKS = jb.Jacobi(1e-6), jb.Jacobi(1e-6, block=32)


def layer(layers: int = LAYERS, **options: Any) -> jb.MaskedAutoregressive:
    """One block: causal attention, and affine transforms."""
    net = nets.CausalTransformer(WIDTH, layers, HEADS)
    return jb.MaskedAutoregressive(jt.Affine(), net=net, **options)


def variables_of(bijector: jb.Bijector, scale: float) -> Any:
    """Parameters that are moved off their first values, as those of a trained model are."""
    x = jnp.ones((1, TOKENS, FEATURES))
    variables = jflow.init(bijector, 0, x)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [a + scale * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def loss(block: jb.Bijector, variables: Any, y: jax.Array) -> jax.Array:
    """-log p, but for a constant."""
    found: Any = block.apply(variables, y, method="inverse_and_log_det")
    z, log_det = found
    return jnp.mean(jnp.sum(z**2, (1, 2)) / 2 - log_det)


def samples() -> None:
    """A likelihood, samples with a memory, by whole passes, and by Jacobi's sweeps."""
    block, sweeps, blocks = layer(), layer(solver=SWEEPS), layer(solver=BLOCKS)
    variables = variables_of(block, 0.02)
    x = jax.random.normal(jax.random.key(2), (BATCH, TOKENS, FEATURES))
    run = lambda b, method, **more: jax.jit(  # noqa: E731
        lambda v, x: b.apply(v, x, method=method, **more)
    )

    def passes(v: Any, x: jax.Array) -> jax.Array:
        """Each token by a pass of all."""
        inverse = lambda y: block.apply(v, y, method="inverse")  # noqa: E731

        def token(i: jax.Array, y: jax.Array) -> jax.Array:
            along = jnp.zeros_like(y).at[:, i].set(1)
            now, slope = jax.jvp(inverse, (y,), (along,))
            return y.at[:, i].add((x[:, i] - now[:, i]) / slope[:, i])

        return jax.lax.fori_loop(0, TOKENS, token, jnp.zeros_like(x))

    programs = {
        "log p": run(block, "inverse_and_log_det"),
        "samples with a memory": run(block, "forward"),
        "samples by Jacobi": run(sweeps, "forward"),
        "samples by Jacobi, 32 tokens at a time": run(blocks, "forward"),
    }
    calls = {name: lambda f=f: f(variables, x) for name, f in programs.items()}
    print_table(interleaved(calls, 5), "log p")
    whole = jax.jit(passes)
    again = jax.block_until_ready(whole(variables, x))
    begun = time.perf_counter()
    jax.block_until_ready(whole(variables, x))
    print(
        f"samples by {TOKENS} passes (and a derivative each): {time.perf_counter() - begun:.1f} s"
    )
    y = calls["samples with a memory"]()
    print(f"largest difference of the two: {float(jnp.abs(y - again).max()):.1e}")
    for one in (sweeps, blocks):
        swept, told = run(one, "forward", mutable=["solver"])(variables, x)
        back = programs["log p"](variables, swept)[0]
        print(
            f"{one.solver}: {int(told['solver']['iterations'])} sweeps; and back, at most "
            f"{float(jnp.abs(back - x).max()):.1e} off"
        )


def compile_times() -> None:
    """Seconds of compilation, by depth."""
    x = jnp.ones((BATCH, TOKENS, FEATURES))
    for layers in (8, 64, 8, 64):
        block = layer(layers)
        variables = jax.eval_shape(lambda block=block: jflow.init(block, 0, x))
        begun = time.process_time()
        jax.jit(jax.grad(partial(loss, block))).lower(variables, x).compile()
        print(f"{layers} layers: {time.process_time() - begun:.1f} CPU s")


def beside_torch() -> None:
    """A gradient of log p and samples, of equal networks."""
    torch: Any = import_module("torch")
    functional = torch.nn.functional

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = torch.nn.ModuleList([torch.nn.RMSNorm(WIDTH) for _ in range(2)])
            self.heads, self.mixed = (
                torch.nn.Linear(WIDTH, 3 * WIDTH),
                torch.nn.Linear(WIDTH, WIDTH),
            )
            self.wide, self.narrow = (
                torch.nn.Linear(WIDTH, 4 * WIDTH),
                torch.nn.Linear(4 * WIDTH, WIDTH),
            )

        def forward(self, h: Any, memory: Any = None) -> tuple[Any, Any]:
            batch, count, _ = h.shape
            joined = self.heads(self.norms[0](h)).reshape(batch, count, 3, HEADS, WIDTH // HEADS)
            query, key, value = joined.permute(2, 0, 3, 1, 4)
            if memory is not None:
                key, value = (torch.cat(both, 2) for both in zip(memory, (key, value), strict=True))
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=count > 1)
            h = h + self.mixed(mixed.transpose(1, 2).reshape(batch, count, WIDTH))
            return h + self.narrow(
                functional.gelu(self.wide(self.norms[1](h)), approximate="tanh")
            ), (key, value)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Linear(FEATURES, WIDTH)
            self.places = torch.nn.Parameter(torch.randn(TOKENS, WIDTH) / 2)
            self.layers = torch.nn.ModuleList([Layer() for _ in range(LAYERS)])
            self.norm, self.last = torch.nn.RMSNorm(WIDTH), torch.nn.Linear(WIDTH, 2 * FEATURES)

        def params(self, before: Any, places: Any, memories: Any = None) -> tuple[Any, Any, Any]:
            h, left = self.embed(before) + places, []
            for i, one in enumerate(self.layers):
                h, memory = one(h, None if memories is None else memories[i])
                left.append(memory)
            shift, raw = self.last(self.norm(h)).chunk(2, -1)
            return shift, 2 * torch.tanh(raw / 2), left

        def log_prob(self, y: Any) -> Any:
            before = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1)
            shift, log_scale, _ = self.params(before, self.places)
            x = (y - shift) * torch.exp(-log_scale)
            return (-(x**2) / 2 - log_scale).sum((1, 2))

        def sample(self, x: Any) -> Any:
            before, memories, found = torch.zeros_like(x[:, :1]), None, []
            for i in range(TOKENS):
                shift, log_scale, memories = self.params(before, self.places[i], memories)
                before = x[:, i : i + 1] * torch.exp(log_scale) + shift
                found.append(before)
            return torch.cat(found, 1)

    net = Net()
    x = torch.randn(BATCH, TOKENS, FEATURES)
    block = layer()
    variables, ours = variables_of(block, 0.02), jnp.asarray(x.numpy())

    gradient, forward = (
        jax.jit(jax.grad(partial(loss, block))),
        jax.jit(lambda v, x: block.apply(v, x, method="forward")),
    )

    def torch_gradient() -> None:
        net.zero_grad()
        net.log_prob(x).mean().backward()

    def torch_samples() -> None:
        with torch.no_grad():
            net.sample(x)

    counts = [sum(a.size for a in jax.tree.leaves(variables["params"]))]
    counts.append(sum(p.numel() for p in net.parameters()))
    print(f"parameters: {counts[0]:,} and {counts[1]:,}; {torch.get_num_threads()} threads")
    train = {"jflow": lambda: gradient(variables, ours), "PyTorch": torch_gradient}
    draw = {"jflow": lambda: forward(variables, ours), "PyTorch": torch_samples}
    for title, calls in (("gradient", train), ("samples", draw)):
        print(title)
        print_table(interleaved(calls, 7), "PyTorch")


PARTS = {"samples": samples, "compile": compile_times, "torch": beside_torch}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()
