"""Images in three parts, as what to train on."""

from typing import Any

from jflow.data.image_scores import check_images_flow
from jflow.data.splits import Labelled, Splits
from jflow.distributions import Flow
from jflow.distributions.examples import check_examples


def of_images(flow: Flow, images: Splits) -> tuple[Any, Any]:
    """What to train on and what to validate on.

    Raises:
      TypeError, ValueError: the flow does not fit the images, of whatever part.
    """
    check_images_flow(flow)
    found, levels = flow.event_shape, flow.integers and flow.integers.high + 1
    if found != images.shape or levels != images.values:
        raise ValueError(
            f"the flow must be of images {images.shape} of {images.values} levels, as these are: "
            f"give the recipe images.shape and values=images.values; its are {found} of {levels}"
        )
    for name in ("validation", "test"):
        check_examples(f"{name} images", flow, getattr(images, name).y)
    train = images.train.y if isinstance(images.train, Labelled) else images.train
    return train, images.validation.y
