"""Autoregressive structure, the slow direction, its solvers and its gradients."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow
from jflow import bijectors as jb
from jflow import flows, nets
from jflow import transformers as jt
from jflow.functional import orders
from jflow.functional.masked import MaskedNet
from tests.harness import perturbed

KEY = jax.random.key(0)


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@partial(jax.jit, static_argnums=(0, 1))
def run(bijector, method, variables, *arguments):
    """One compiled program for equal bijectors and shapes, whatever the test."""
    return bijector.apply(variables, *arguments, method=method)


def build(features=6, context=None, **options):
    """A bijector, its variables moved off zero, and points."""
    options = {"transformer": jt.Affine(), "hidden": (13, 9), **options}
    bijector = jb.MaskedAutoregressive(**options)
    y = normal(4, features)
    variables = perturbed(jflow.init(bijector, KEY, y, context), 0.5)
    return bijector, variables, y


@pytest.mark.parametrize("hidden", [(1,), (3,), (5,), (6, 17), (64, 2)])
@pytest.mark.parametrize("context", [False, True])
def test_groups_of_units(hidden, context):
    net = MaskedNet(6, 2, hidden, jax.nn.relu, context=context)
    lowest = 0 if context else 1
    for degrees, units in zip(net.degrees[1:-1], hidden, strict=True):
        assert len(degrees) == units
        assert (np.diff(degrees) >= 0).all()
        assert degrees[-1] == 5
        assert degrees[0] >= lowest
        sizes = np.bincount(degrees, minlength=6)[lowest:]
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("order", ["natural", "reversed", "random", (2, 0, 5, 1, 4, 3)])
@pytest.mark.parametrize(
    "net",
    [
        nets.MADE((13, 9), activation=jnp.tanh),
        nets.MADE((13, 9), direct=True, activation=jnp.tanh),
        nets.ResidualMADE(12, 2, activation=jnp.tanh),
    ],
    ids=["plain", "direct", "residual"],
)
def test_jacobian_is_triangular_in_the_order(order, net):
    bijector, variables, y = build(order=order, net=net)
    inverse = lambda y: bijector.apply(variables, y, method="inverse")  # noqa: E731
    jacobian = np.asarray(jax.jit(jax.jacfwd(inverse))(y[0]))
    by_name = {"natural": np.arange(6), "reversed": np.arange(6)[::-1]}
    if order == "random":
        order = variables["constants"]["order"]
    order = np.asarray(by_name.get(order, order) if isinstance(order, str) else order)
    sorted_ = jacobian[np.ix_(order, order)]
    np.testing.assert_array_equal(np.triu(sorted_, 1), 0)
    # Every feature depends on all that are before it.
    assert (np.tril(sorted_) != 0).sum() == 21


def test_one_feature_depends_on_the_context():
    context = normal(4, 3)
    bijector, variables, y = build(features=1, context=context)
    x, log_det = run(bijector, "inverse_and_log_det", variables, y, context)
    again, opposite = run(bijector, "forward_and_log_det", variables, x, context)
    np.testing.assert_allclose(again, y, atol=1e-12)
    np.testing.assert_allclose(opposite, -log_det, atol=1e-12)
    assert len(set(np.asarray(log_det).tolist())) == 4
    plain, variables, y = build(features=1)
    assert run(plain, "inverse", variables, y).shape == (4, 1)


@pytest.mark.parametrize("hidden", [(4,), (64, 4), (2, 2)])
def test_narrow_networks_pass_the_context_to_every_feature(hidden):
    context = normal(3)
    net = nets.MADE(hidden, activation=jnp.tanh)
    bijector, variables, y = build(features=8, context=context, net=net)
    shift = lambda c: bijector.apply(variables, y[0], c, method="inverse")  # noqa: E731
    assert (np.abs(jax.jit(jax.jacrev(shift))(context)).max(axis=1) > 0).all()


@pytest.mark.parametrize("batch", [(), (0,), (2, 0), (2, 1)])
def test_any_batch_in_both_directions_with_gradients(batch):
    context = normal(2)
    bijector, variables, _ = build(context=context, net=nets.MADE((9,), direct=True))
    x = np.ones((*batch, 6))

    def loss(x, context, method):
        y, log_det = bijector.apply(variables, x, context, method=method)
        assert y.shape == x.shape
        assert log_det.shape == batch
        return jnp.sum(y) + jnp.sum(log_det)

    @jax.jit
    def gradients(x, context):
        methods = ("forward_and_log_det", "inverse_and_log_det")
        return [jax.grad(loss, (0, 1))(x, context, method) for method in methods]

    for by_x, by_context in gradients(x, context):
        assert by_x.shape == x.shape
        assert np.isfinite(by_context).all()


def naive_forward(bijector, variables, x):
    """The slow direction by full passes, D in any order, which autodiff can see through."""
    inverse = lambda y: bijector.apply(variables, y, method="inverse_and_log_det")  # noqa: E731

    features = x.shape[-1]

    def step(i, y):
        i = i % features
        # Affine in y_i given those before: one Newton step is exact.
        along = jnp.zeros_like(y).at[:, i].set(1)
        (now, _), (slope, _) = jax.jvp(inverse, (y,), (along,))
        return y.at[:, i].add((x[:, i] - now[:, i]) / slope[:, i])

    y = jax.lax.fori_loop(0, features * features, step, jnp.zeros_like(x))
    return y, -inverse(y)[1]


def slow_forward(bijector, variables, x):
    return bijector.apply(variables, x, method="forward_and_log_det")


def weighted_sum(forward, bijector, params, x):
    y, log_det = forward(bijector, {"params": params}, x)
    weights = jnp.arange(1.0, x.size + 1).reshape(x.shape)
    return jnp.sum(jnp.sin(y) * weights) + jnp.sum(log_det * jnp.arange(4.0))


@partial(jax.jit, static_argnums=0)
def naive_gradients(bijector, params, x):
    return jax.grad(partial(weighted_sum, naive_forward, bijector), (0, 1))(params, x)


@partial(jax.jit, static_argnums=0)
def slow_gradients(bijector, params, x):
    """By the parameters and x in reverse mode, and along steps of 1 of all parameters."""
    loss = partial(weighted_sum, slow_forward, bijector)
    step = jax.tree.map(jnp.ones_like, params)
    along = jax.jvp(lambda p: loss(p, x), (params,), (step,))[1]
    return jax.grad(loss, (0, 1))(params, x), along


@pytest.mark.parametrize("solver", [None, jb.Jacobi(tolerance=1e-13)])
@pytest.mark.parametrize("net", [nets.MADE((13, 9), direct=True), nets.ResidualMADE(12, 1)])
def test_gradients_of_the_slow_direction(solver, net):
    bijector, variables, x = build(solver=solver, net=net)
    params = variables["params"]
    wanted = naive_gradients(bijector.clone(solver=None), params, x)
    got, along = slow_gradients(bijector, params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9), got, wanted)
    total = sum(np.sum(leaf) for leaf in jax.tree.leaves(got[0]))
    np.testing.assert_allclose(along, total, rtol=1e-8)


def test_jacobi_reports_sweeps_and_residual():
    bijector, variables, x = build(features=8, solver=jb.Jacobi(tolerance=1e-3))
    to_the_end = bijector.clone(solver=jb.Jacobi(tolerance=0.0))
    cut_short = bijector.clone(solver=jb.Jacobi(tolerance=0.0, max_sweeps=2))

    @jax.jit
    def results(x):
        solve = lambda b: b.apply(variables, x, method="forward", mutable=["solver"])  # noqa: E731
        exact = jb.MaskedAutoregressive(jt.Affine(), (13, 9)).apply(variables, x, method="forward")
        return exact, solve(bijector), solve(to_the_end), solve(cut_short)

    exact, (y, state), (y_at_end, at_end), (unfinished, early) = results(x)
    assert 1 <= int(state["solver"]["iterations"]) <= 8
    assert 0 <= float(state["solver"]["residual"]) <= 1e-2
    np.testing.assert_allclose(y, exact, atol=0.1)
    assert float(at_end["solver"]["residual"]) < 1e-12
    np.testing.assert_allclose(y_at_end, exact, atol=1e-12)
    assert int(early["solver"]["iterations"]) == 2
    assert float(early["solver"]["residual"]) > 0
    assert np.isnan(unfinished).any()


def test_too_few_sweeps_are_an_error_and_nan_in_programs():
    """Each point by itself: those that are close to the tolerance after so many are kept."""
    layer = jb.MaskedAutoregressive(jt.Affine(), (16,), solver=jb.Jacobi(max_sweeps=3))
    assert layer.may_fail
    assert not layer.clone(solver=jb.Jacobi()).may_fail
    flow = jflow.Flow(jb.Chain((layer, jb.Reverse())), (16,))
    y = normal(8, 16)
    density = jflow.Density(flow, perturbed(jflow.init(flow, KEY, y), 0.5))
    with pytest.raises(FloatingPointError, match="did not converge for 8 of 8 points"):
        density.sample(KEY, 8)
    inner = {"params": density.variables["params"]["bijector"]["bijectors_0"]}
    with pytest.raises(
        FloatingPointError, match=r"Jacobi\(.*max_sweeps=3.*\) did not find a point"
    ):
        layer.apply(inner, y, method="forward")

    @jax.jit
    def in_a_program(x):
        x = density.from_latents(x)
        return x, jax.grad(lambda x: jnp.sum(density.from_latents(x)))(x)

    for result in in_a_program(normal(8, 16)):
        assert np.isnan(result).any()
    assert np.isfinite(density.log_prob(y)).all()


GRAPH = np.asarray([[0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]])


@pytest.mark.parametrize("solver", [None, jb.Jacobi(tolerance=1e-13)])
@pytest.mark.parametrize("direct", [False, True])
def test_a_graph_is_what_features_depend_on(solver, direct):
    net = nets.MADE((12, 9), direct=direct, activation=jnp.tanh)
    bijector, variables, y = build(features=4, order=GRAPH, net=net, solver=solver)
    assert bijector == bijector.clone(order=GRAPH.tolist())
    assert hash(bijector) == hash(bijector.clone())
    inverse = lambda y: bijector.apply(variables, y, method="inverse")  # noqa: E731
    jacobian = np.asarray(jax.jit(jax.jacfwd(inverse))(y[0]))
    np.testing.assert_array_equal(jacobian != 0, GRAPH + np.eye(4) > 0)
    x = run(bijector, "inverse", variables, y)
    np.testing.assert_allclose(run(bijector, "forward", variables, x), y, atol=1e-12)
    wanted = naive_gradients(bijector.clone(solver=None), variables["params"], y)
    got, _ = slow_gradients(bijector, variables["params"], y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9), got, wanted)


def test_graphs_of_many_features_are_sorted_once():
    chain = np.eye(400, k=-1, dtype=int)[::-1, ::-1]
    start = time.perf_counter()
    bijector = jb.MaskedAutoregressive(jt.Affine(), order=chain)
    assert bijector.clone() == bijector
    assert time.perf_counter() - start < 1
    assert orders.sorted_features(bijector.order) == tuple(range(399, -1, -1))
    arranged = np.array(orders.sorted_graph(bijector.order))
    np.testing.assert_array_equal(arranged, np.eye(400, k=-1))


def test_sweeps_are_as_many_as_features_that_depend_on_each_other():
    star = np.zeros((9, 9), int)
    star[1:, 0] = 1
    bijector, variables, x = build(features=9, order=star, solver=jb.Jacobi(), hidden=(20,))
    _, state = bijector.apply(variables, x, method="forward", mutable=["solver"])
    assert int(state["solver"]["iterations"]) == 2  # one more, not counted, finds no change


def test_gradients_form_no_jacobian_and_those_of_sweeps_have_no_loop_over_features():
    def gradient(bijector, shape):
        x = normal(*shape)
        variables = jflow.init(bijector, KEY, x)
        samples = lambda v, x: bijector.apply(v, x, method="forward")  # noqa: E731
        loss = lambda v, x: jnp.sum(jnp.sin(samples(v, x)))  # noqa: E731
        return str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, x))

    for solver in (None, jb.Jacobi()):
        text = gradient(jb.BlockAutoregressive(3, solver=solver), (5, 11))
        assert "[5,11]" in text
        for shape in ("[5,11,11]", "[11,5,11]", "[11,11,5]"):
            assert shape not in text
        assert ("scan[" in text) == (solver is None)
    sweeps = jb.MaskedAutoregressive(jt.Affine(), (12,), solver=jb.Jacobi())
    assert "scan[" not in gradient(sweeps, (5, 11))
    rows = jb.RowAutoregressive(jt.Affine(), nets.RowNet(4), solver=jb.Jacobi())
    assert "scan[" not in gradient(rows, (5, 6, 6, 1))


@pytest.mark.parametrize(
    "bijector",
    [jb.BlockAutoregressive(3), jb.RowAutoregressive(jt.Affine(), nets.RowNet(4, 2, 3), "left")],
    ids=["blocks", "rows"],
)
def test_sweeps_and_steps_agree(bijector):
    x = normal(3, 4, 3, 1) if isinstance(bijector, jb.RowAutoregressive) else normal(3, 5)
    variables = perturbed(jflow.init(bijector, KEY, x), 0.3)

    def loss(bijector, variables, x):
        y, log_det = bijector.apply(variables, x, method="forward_and_log_det")
        return jnp.sum(jnp.sin(y)) + jnp.sum(log_det * log_det), (y, log_det)

    both = [bijector, bijector.clone(solver=jb.Jacobi(tolerance=1e-13))]
    steps, sweeps = jax.jit(
        lambda v, x: [jax.value_and_grad(loss, (1, 2), has_aux=True)(b, v, x) for b in both]
    )(variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9), steps, sweeps)


def test_jacobi_in_a_repeat_reports_for_each_layer():
    step = jb.MaskedAutoregressive(jt.Affine(), (6,), solver=jb.Jacobi())
    stack, x = jb.Repeat(step, 3), normal(4, 5)
    variables = jflow.init(stack, KEY, x)
    assert set(variables) == {"params"}
    _, state = jax.jit(lambda v, x: stack.apply(v, x, method="forward", mutable=["solver"]))(
        variables, x
    )
    assert state["solver"]["bijector"]["iterations"].shape == (3,)


@pytest.mark.parametrize("solver", [None, jb.Jacobi()])
def test_values_that_are_not_finite_leave_earlier_features_alone(solver):
    bijector, variables, x = build(solver=solver)
    wanted = run(bijector, "forward", variables, x)
    for bad in (np.nan, np.inf):
        spoilt = x.copy()
        spoilt[:, 3] = bad
        y = np.asarray(run(bijector, "forward", variables, spoilt))
        np.testing.assert_allclose(y[:, :3], wanted[:, :3], atol=1e-12)
        assert not np.isfinite(y[:, 3:]).any()


def test_transients_of_jacobi_do_not_spoil_the_result():
    # Without bounds on scales, early sweeps overflow in float32; the solution does not.
    net = nets.MADE((32,))
    bijector = jb.MaskedAutoregressive(jt.Affine(bound=float("inf")), net=net)
    y = normal(4, 12).astype(np.float32)
    variables = perturbed(jflow.init(bijector, KEY, y), 0.6)
    x = run(bijector, "inverse", variables, y)
    exact = run(bijector, "forward", variables, x)
    solved = run(bijector.clone(solver=jb.Jacobi(tolerance=1e-7)), "forward", variables, x)
    np.testing.assert_allclose(solved, exact, rtol=1e-3, atol=1e-3)
    assert np.isfinite(solved).all()


def parameters(bijector, x, **values):
    """Variables of zeros but for the entries given, name={index: value}."""
    shapes = jax.eval_shape(lambda: jflow.init(bijector, KEY, x))["params"]["conditioner"]
    params = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    for name, entries in values.items():
        for index, value in entries.items():
            params[name][index] = value
    return {"params": {"conditioner": params}}


def test_large_transients_of_jacobi_do_not_reach_earlier_features():
    # In the first sweep u_1 = e^87, which is finite, and makes a hidden unit infinite.
    bijector = jb.MaskedAutoregressive(
        jt.Affine(bound=float("inf")), hidden=(2,), solver=jb.Jacobi()
    )
    x = np.ones(3, np.float32)
    variables = parameters(
        bijector, x, kernel_0={(0, 0): 1, (1, 1): 10}, bias_last={(1, 1): 87},
        kernel_last={(0, 1, 1): -87, (1, 0, 2): 0.1},
    )  # fmt: skip
    y, log_det = run(bijector, "forward_and_log_det", variables, x)
    np.testing.assert_allclose(y, [1, 1, 2], rtol=1e-5)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


def test_units_whose_inputs_are_not_there_yet_spoil_nothing():
    # At u_0 = 0 the first unit is e^200: infinite in float32. At u_0 = 1 it is 1.
    net = nets.MADE((2,), activation=jnp.exp)
    bijector, y = jb.MaskedAutoregressive(jt.Affine(), net=net), np.asarray([1, 2, 1], np.float32)
    variables = parameters(
        bijector, y, kernel_0={(0, 0): -200}, bias_0={0: 200}, kernel_last={(0, 0, 1): 1}
    )
    x = run(bijector, "inverse", variables, y)
    np.testing.assert_allclose(run(bijector, "forward", variables, x), y, rtol=1e-6)


@pytest.mark.parametrize("solver", [None, jb.Jacobi(tolerance=1e-13)])
def test_points_outside_of_the_range_have_no_gradient(solver):
    spline = jt.RationalQuadraticSpline(bins=2, tails=None)
    net = nets.MADE((6,), activation=jnp.tanh)
    bijector = jb.Invert(jb.MaskedAutoregressive(jt.Inverted(spline), net=net, solver=solver))
    y = np.asarray([0.3, 1.7, 0.6])
    variables = perturbed(jflow.init(bijector, KEY, y), 0.5)
    inverse = lambda y: bijector.apply(variables, y, method="inverse_and_log_det")  # noqa: E731
    value_too = lambda y: (inverse(y),) * 2  # noqa: E731
    by_rows, by_columns = jax.jit(
        lambda y: (jax.jacrev(value_too, has_aux=True)(y), jax.jacfwd(inverse)(y))
    )(y)
    (by_x, by_log_det), (_, log_det) = by_rows
    assert np.isneginf(log_det)
    np.testing.assert_array_equal(by_x[:, 1], 0)
    np.testing.assert_array_equal(by_log_det[1], 0)
    assert (np.abs(by_x[:, 0]) > 0).all()
    np.testing.assert_allclose(by_columns[0], by_x, atol=1e-12)


@pytest.mark.parametrize(
    "bijector",
    [
        jb.MaskedAutoregressive(jt.Affine(), net=nets.MADE((16,), dropout=0.5)),
        jb.RowAutoregressive(jt.Affine(), nets.RowNet(8, dropout=0.5)),
    ],
    ids=["features", "rows"],
)
def test_the_slow_direction_drops_nothing_not_in_its_gradient(bijector):
    x = normal(3, 4) if isinstance(bijector, jb.MaskedAutoregressive) else normal(3, 4, 2, 1)
    variables = perturbed(jflow.init(bijector, KEY, x), 0.5)

    def result(method, **options):
        loss = lambda v: jnp.sum(jnp.sin(bijector.apply(v, x, method=method, **options)))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(variables)

    dropping = {"rngs": {"dropout": KEY}}
    jax.tree.map(np.testing.assert_array_equal, result("forward"), result("forward", **dropping))
    assert result("inverse")[0] != result("inverse", **dropping)[0]


def test_dropout_acts_in_training_only():
    bijector, variables, y = build(net=nets.MADE((32, 32), dropout=0.5))
    inverse = lambda **o: bijector.apply(variables, y, method="inverse", **o)  # noqa: E731
    first, second, dropped = jax.jit(
        lambda key: (inverse(), inverse(), inverse(rngs={"dropout": key}))
    )(KEY)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - dropped).max() > 1e-3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jb.MaskedAutoregressive(jt.Affine(), order="odd"), "order must be one of"),
        (lambda: jb.MaskedAutoregressive(jt.Affine(), order=(0, 2)), "a permutation of 0..n-1"),
        (lambda: jb.MaskedAutoregressive(jt.Tanh()), "Tanh takes no parameters"),
        (
            lambda: jflow.Flow(jb.MaskedAutoregressive(jt.Affine(), order=(1, 0)), (3,)),
            r"order has 2 entries; the event shape is \(3,\)",
        ),
        (lambda: nets.MADE(()), "one width or more"),
        (lambda: flows.maf(3, hidden=64), r"hidden must be the widths .* got 64"),
        (lambda: jb.MaskedAutoregressive(jt.Affine(), order=3), "order must be one of .* got 3"),
        (
            lambda: jb.MaskedAutoregressive(jt.Affine(), order=[[0, 1], [1, 0]]),
            r"must have no cycles; features \[0, 1\] depend",
        ),
        (lambda: jb.MaskedAutoregressive(jt.Affine(), order=[[0, 2], [0, 0]]), "of 0 and 1"),
        (lambda: jb.MaskedAutoregressive(jt.Affine(), order=()), r"order must be one of .*\(\)"),
        (lambda: jb.MaskedAutoregressive(jt.Affine(), order=[[0], [1, 0]]), "order must be one of"),
        (lambda: jb.MaskedAutoregressive(jt.Affine(), order=["a", "b"]), "order must be one of"),
        (lambda: jb.MaskedAutoregressive(jt.Affine(), order=[[0, 0, 1]]), r"a \(D, D\) matrix"),
        (
            lambda: jb.MaskedAutoregressive(jt.Affine(), net=nets.RowNet(), order=[[0, 0], [1, 0]]),
            r"an order that is a graph needs net=MADE",
        ),
        (
            lambda: jflow.init(
                jb.MaskedAutoregressive(jt.Affine(), (8, 3), order=GRAPH), KEY, normal(2, 4)
            ),
            r"MADE: with a graph, hidden must be widths of 4 or more.*got \(8, 3\)",
        ),
        (
            lambda: flows.maf(0),
            "every axis of event_shape must be a whole number, 1 or more; got 0",
        ),
        (lambda: flows.maf(3, dtype="bf16"), "dtype must be a floating dtype .* got 'bf16'"),
        (lambda: nets.MADE((4, 4), residual=True), "odd number of widths"),
        (lambda: jb.Jacobi(max_sweeps=0), "max_sweeps 1 or more"),
        (lambda: jb.Jacobi(max_sweeps=1.5), "max_sweeps 1 or more"),
        (lambda: jb.Jacobi(block=0), "Jacobi: block must be a whole number"),
        (
            lambda: build(solver=jb.Jacobi(block=9))[0].init(
                KEY, jnp.ones((1, 4)), method="forward"
            ),
            "MaskedFunction has no steps of blocks",
        ),
        (lambda: flows.maf(3, mixing="none"), "maf: mixing must be"),
        (lambda: flows.nsf(3, residual=True), "give autoregressive=True"),
        (lambda: flows.nsf(3, direct=True), "give autoregressive=True"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


RECIPES = {
    "maf": lambda **o: flows.maf(4, 2, (8,), **o),
    "maf-residual": lambda **o: flows.maf(4, 2, (8, 8, 8), residual=True, mixing="permute", **o),
    "iaf": lambda **o: flows.iaf(4, 2, (8,), mixing="lu", **o),
    "nsf": lambda **o: flows.nsf(4, 2, 2, (8,), mixing="lu", **o),
    "nsf-autoregressive": lambda **o: flows.nsf(4, 2, 2, (8,), autoregressive=True, **o),
}


@pytest.mark.parametrize("context_shape", [None, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes_sample_score_and_save(name, context_shape, tmp_path):
    flow = RECIPES[name](context_shape=context_shape)
    assert flow == RECIPES[name](context_shape=context_shape)
    context = None if context_shape is None else normal(16, 2)
    y = 3 + 2 * normal(16, 4)
    variables = perturbed(jflow.init(flow, KEY, y, context), 0.1)
    density = jflow.Density(flow, variables)
    samples, log_prob = density.sample_and_log_prob(KEY, 16, context)
    np.testing.assert_allclose(density.log_prob(samples, context), log_prob, atol=1e-6)
    latents = density.latents(y, context)
    np.testing.assert_allclose(density.from_latents(latents, context), y, atol=1e-7)
    density.save(tmp_path / "density")
    again = jflow.load(tmp_path / "density")
    np.testing.assert_array_equal(again.log_prob(y, context), density.log_prob(y, context))
