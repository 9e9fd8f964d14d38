"""What the course of training says."""

import numpy as np

from jflow.report.evidence import Evidence, ImageEvidence


def of_course(evidence: Evidence | ImageEvidence, unit: str, name: str) -> list[str]:
    """Warnings."""
    said, history = [], evidence.history
    if evidence.ended in ("done", "stopped") and evidence.best_step == history[-1]["step"]:
        said.append("Training ended while validation was still improving: more steps may help.")
    losses = [row.get(f"validation_{unit}", np.inf) for row in history]
    lost, much = losses[-1] - min(losses), 1.0 if unit == "nll" else 0.05
    if lost > much:
        said.append(
            f"Validation got worse after step {evidence.best_step}, by {lost:.2g} {name}: the flow "
            "fits its training data too closely. More data or dropout would help."
        )
    return said
