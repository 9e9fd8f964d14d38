"""Images completed, cleaned, enlarged and edited, beside what is simpler, on held-out images.

    python -m benchmarks.image_edits MODEL digits [COUNT] [PICTURE.png]
    python -m benchmarks.image_edits MODEL faces.npz [COUNT] [PICTURE.png]
    python -m benchmarks.image_edits super-resolution digits [COUNT] [STEPS]

MODEL is a directory that `jflow fit` or `ImageDensity.save` wrote, of a flow that was fitted to the
training images. Peak signal-to-noise ratios are in dB, of pixels that are restored; bits per
dimension are those of the whole images under the flow; all with standard errors over images.
"""

import sys
import time

import jax
import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import LogisticRegression, Ridge

import jflow
from jflow import data, flows

# Of the levels, as shares.
NOISE = 0.1


def main() -> None:
    """Prints the tables."""
    what, source, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 32
    splits = data.images(source)
    y = splits.test.y[np.random.default_rng(1).permutation(len(splits.test.y))[:count]]
    if what == "super-resolution":
        conditional(splits, y, int(rest[1]) if len(rest) > 1 else 1_000)
        return
    density = data.ImageDensity.load(what)
    print(f"{source}: {count} test images, {-bits(density, y).mean():.3f} bits/dim\n", flush=True)
    rows = inpainted(density, splits, y)
    cleaned(density, splits, y)
    enlarged(density, splits, y)
    attributes(density, splits)
    if len(rest) > 1:
        from PIL import Image

        picture = data.tile(np.concatenate(rows), columns=8)
        grey = np.round(picture * (255 / (density.levels - 1))).astype(np.uint8)
        scale = max(1, 500 // grey.shape[1])
        size = grey.shape[1] * scale, grey.shape[0] * scale
        Image.fromarray(grey[..., 0]).resize(size, Image.Resampling.NEAREST).save(rest[1])


def bits(density, y):
    """log p in bits per dimension."""
    levels = np.clip(np.rint(y), 0, density.levels - 1).astype(np.int64)
    return density.log_prob(levels) / np.log(2) / np.prod(density.shape)


def ratio(found, y, top, where=None):
    """PSNR of each image, with its mean and standard error as text."""
    where = np.ones(y.shape, bool) if where is None else np.broadcast_to(where, y.shape)
    error = (np.square(np.asarray(found, float) - y) * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
    db = 10 * np.log10(top**2 / np.maximum(error, 1e-4))
    return f"{db.mean():.2f} ± {db.std() / np.sqrt(len(db)):.2f}"


def inpainted(density, splits, y):
    """Prints the table of inpainting; returns rows of a picture."""
    height, width, _ = density.shape
    holes = {name: np.zeros((height, width, 1), bool) for name in ("lower", "right", "centre")}
    holes["lower"][height // 2 :] = True
    holes["right"][:, width // 2 :] = True
    holes["centre"][height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
    holes["random half"] = np.random.default_rng(0).random((height, width, 1)) < 0.5
    train, top = splits.train.y.astype(float), density.levels - 1
    print(
        "| missing | mean of draws | one draw | ascent | nearest image | mean image "
        "| bits/dim of mean, draw, ascent | of nearest, mean | s |\n" + "|---" * 9 + "|"
    )
    rows = []
    for name, hole in holes.items():
        start = time.time()
        found = density.inpaint(y, hole)
        seconds = time.time() - start
        climbed = density.inpaint(y, hole, method="ascent", steps=200, particles=1).draws[:, 0]
        far = (np.square(train[None] - y[:, None]) * ~hole).sum((2, 3, 4))
        nearest = np.where(hole, train[far.argmin(1)], y)
        mean = np.where(hole, train.mean(0), y)
        said = [ratio(f, y, top, hole)
                for f in (found.mean, found.draws[:, 0], climbed, nearest, mean)]  # fmt: skip
        cost = [f"{-bits(density, f).mean():.2f}"
                for f in (found.mean, found.draws[:, 0], climbed, nearest, mean)]  # fmt: skip
        print(f"| {name} | {' | '.join(said)} | {', '.join(cost[:3])} | {', '.join(cost[3:])} "
              f"| {seconds:.0f} |", flush=True)  # fmt: skip
        if name == "lower":
            seen = np.where(hole, 0, y)
            rows = [np.rint(a[:8]).astype(int) for a in (y, seen, found.mean, found.draws[:, 0])]
    print()
    return rows


def cleaned(density, splits, y):
    """Prints the table of noise taken away."""
    top, noise = density.levels - 1, NOISE * density.levels
    told = y + noise * np.random.default_rng(3).normal(size=y.shape)
    found = density.denoise(told, noise)
    validation = splits.validation.y.astype(float)
    noisy = validation + noise * np.random.default_rng(4).normal(size=validation.shape)
    blurred = lambda a, w: gaussian_filter(a, (0, w, w, 0))  # noqa: E731
    best = min(
        np.arange(0.1, 2, 0.1), key=lambda w: np.square(blurred(noisy, w) - validation).mean()
    )
    flat = splits.train.y.reshape(len(splits.train.y), -1).astype(float)
    mean, spread = flat.mean(0), np.cov(flat, rowvar=False)
    gain = np.linalg.solve(spread + noise**2 * np.eye(len(spread)), spread)
    wiener = (mean + (told.reshape(len(y), -1) - mean) @ gain).reshape(y.shape)
    print("| noise | denoise | one draw | noisy | Gaussian filter | Wiener |\n" + "|---" * 6 + "|")
    pictures = (found.mean, found.draws[:, 0], told, blurred(told, best), wiener)
    print(f"| {noise:.1f} | {' | '.join(ratio(f, y, top) for f in pictures)} |\n", flush=True)


def small_of(y, factor=2):
    """Means of blocks."""
    n, h, w, c = y.shape
    return y.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))


def simple(splits, y):
    """Enlarged by copies of pixels, by lines between them, and by a linear regression."""
    small = small_of(y)
    copies = small.repeat(2, axis=1).repeat(2, axis=2)
    lines = np.asarray(jax.image.resize(small, y.shape, "linear"))
    train = splits.train.y
    flat = lambda a: a.reshape(len(a), -1)  # noqa: E731
    linear = Ridge(1.0).fit(flat(small_of(train)), flat(train)).predict(flat(small))
    return copies, lines, linear.reshape(y.shape)


def enlarged(density, splits, y):
    """Prints the table of super-resolution by the posterior of an unconditional flow."""
    found = density.enlarge(small_of(y), 2)
    print("| enlarge | one draw | copies | bilinear | linear regression |\n" + "|---" * 5 + "|")
    pictures = (found.mean, found.draws[:, 0], *simple(splits, y))
    print(f"| {' | '.join(ratio(f, y, density.levels - 1) for f in pictures)} |\n", flush=True)


def conditional(splits, y, steps):
    """Prints the table of super-resolution by a conditional Glow."""
    shape, top = splits.shape, splits.values - 1
    context = [np.float32(small_of(part.y)) for part in (splits.train, splits.validation)]
    flow = flows.glow(shape, values=splits.values, context_shape=context[0].shape[1:])
    start = time.time()
    validation = (splits.validation.y, context[1])
    density, history = jflow.fit(flow, splits.train.y, context=context[0], validation=validation,
                                 key=0, steps=steps, batch_size=64, progress=False)  # fmt: skip
    told = np.float32(small_of(y))
    draws = np.stack([np.asarray(density.sample(i, len(y), told)) for i in range(16)])
    cold = np.asarray(density.sample(0, len(y), told, temperature=0.3))
    print(f"{steps:,} steps, {time.time() - start:.0f} s, validation "
          f"{history.best['validation_bits_per_dim']:.3f} bits/dim")  # fmt: skip
    print(
        "| conditional Glow, mean of 16 draws | one draw | of temperature 0.3 | copies | bilinear "
        "| linear regression |\n" + "|---" * 6 + "|"
    )
    pictures = (draws.mean(0), draws[0], cold, *simple(splits, y))
    print(f"| {' | '.join(ratio(f, y, top) for f in pictures)} |\n", flush=True)


def attributes(density, splits):
    """Prints what a classifier sees of edited test images: digits, or mouths of faces."""
    train, test = splits.train, splits.test
    flat = lambda a: a.reshape(len(a), -1) / density.levels  # noqa: E731
    labels, of_test = train.labels, test.labels
    if len(np.unique(labels)) < 2:  # those that differ most in the lower third
        mouth = lambda a: flat(a[:, 2 * a.shape[1] // 3 :])  # noqa: E731
        middle = mouth(train.y).mean(0)
        way = np.linalg.svd(mouth(train.y) - middle, full_matrices=False)[2][0]
        rank, of_rank = ((mouth(part.y) - middle) @ way for part in (train, test))
        low, high = np.quantile(rank, [0.25, 0.75])
        labels = np.where(rank > high, 1, np.where(rank < low, 0, -1))
        of_test = np.where(of_rank > high, 1, np.where(of_rank < low, 0, -1))
    sees = LogisticRegression(max_iter=2000).fit(flat(train.y[labels >= 0]), labels[labels >= 0])
    known = of_test >= 0
    print(f"classifier: {sees.score(flat(test.y[known]), of_test[known]):.3f} of test images right")
    print("| from, to | before | strength 0.5 | 1 | 1.5 | difference of pixels | bits/dim of 1, of "
          "that |\n" + "|---" * 7 + "|")  # fmt: skip
    pairs = [(0, 6), (1, 7), (3, 9), (5, 8), (4, 1)] if len(sees.classes_) > 2 else [(0, 1), (1, 0)]
    for start, end in pairs:
        images = test.y[of_test == start][:30]
        a, b = (train.y[labels == label] for label in (start, end))
        towards = density.attribute(b, a)
        seen = lambda y: f"{(sees.predict(flat(y)) == end).mean():.2f}"  # noqa: E731, B023
        edited = [density.edit(images, towards, s) for s in (0.5, 1.0, 1.5)]
        pixels = np.clip(np.rint(images + b.mean(0) - a.mean(0)), 0, density.levels - 1)
        cost = ", ".join(f"{-bits(density, f).mean():.2f}" for f in (edited[1], pixels))
        cells = [seen(f) for f in (images, *edited, pixels)]
        print(f"| {start}, {end} | {' | '.join(cells)} | {cost} |", flush=True)


if __name__ == "__main__":
    main()
