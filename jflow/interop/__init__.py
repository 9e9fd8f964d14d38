"""Bridges to other libraries, each in a module of its own that imports that library.

    jflow.interop.distrax    distributions and bijectors, both ways; so trains with Distrax
    jflow.interop.tfp        the same for TensorFlow Probability on JAX
    jflow.interop.flowjax    bijections and distributions, both ways
    jflow.interop.numpyro    distributions, transforms, guides for SVI and NeuTra
    jflow.interop.blackjax   NUTS in the latents of a flow
    jflow.interop.arviz      draws, for diagnostics
    jflow.interop.weights    trained flows of zuko, nflows and normflows

`pulled_back` needs none of them. What a library wants that a flow has not, such as a log_prob that
is no random draw, is refused where the bridge is built.
"""

from jflow.interop.pulled_back import PulledBack, pulled_back

__all__ = ["PulledBack", "pulled_back"]
