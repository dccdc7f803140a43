"""The choice of the policy that a phase stores, among those that were evaluated.

All evaluations of a training run fly the same starts with the same keys, so that policies are compared in pairs.
"""

from __future__ import annotations

from mission.storage.records import EvaluationRecord, RunProgress

NEAR = 0.0002  # success rates this close count as equal
_ROUNDING = 1e-9


def is_best(progress: RunProgress, found: EvaluationRecord) -> bool:
    """Return whether an evaluation is the best so far, and note it in the progress.

    A policy that meets the bounds of the gate ranks above one that does not. Among those of the same rank, a policy whose
    success rate is within `NEAR` of the largest so far ranks above one that is not, and then the larger return counts. So
    the stored policy never succeeds in more than 0.02 points fewer flights than any other, however often it is replaced:
    the distance is measured from the largest rate, not from that of the policy before.
    """
    best = progress.evaluation
    if best is not None and best.passed and not found.passed:
        return False
    first = best is None or best.passed != found.passed
    progress.most_success = found.success if first else max(progress.most_success, found.success)
    if not first and best is not None:
        least = progress.most_success - NEAR - _ROUNDING
        if found.success < least or (best.success >= least and found.returns <= best.returns):
            return False
    progress.evaluation, progress.best_env_steps = found, progress.env_steps
    return True
