"""Where the vehicle would come to rest, as predicted at the start of the entry, against the wind and the tanks.

Claim: with the vacuum impact point on the pad, drag and wind carry the vehicle kilometres past it, and nearly all of that is known
before the boostback ends; with the target moved against both (`target_x_m`, `target_lead_s`) the entry has little left to correct.

Command: python benchmarks/aim.py [--checkpoints DIR] [--json FILE]

The states are those of the arc's bank, the prediction is that of the entry's guide at nominal drag.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import jax
import numpy as np

from mission import load_mission, resolve_mission
from mission.storage.steps import PhaseFolder
from mission.training.bank import load_bank

ROOT = Path(__file__).resolve().parent.parent
MISSION = ROOT / "missions" / "return_to_launch_site.yaml"
SHIPPED = ROOT / "checkpoints" / "shipped" / "return_to_launch_site"


def first_predictions(checkpoints: Path) -> dict[str, np.ndarray]:
    """Return the predicted point of rest [m], the wind [m/s] and the propellant [kg] at the start of the entry, each [N]."""
    phases = {phase.name: phase for phase in resolve_mission(load_mission(MISSION))}
    folder = PhaseFolder(checkpoints / "arc")
    record = folder.policy_record()
    bank = load_bank(folder, phases["arc"], record) if record is not None else None
    if bank is None:
        raise SystemExit(
            f"{folder.path}: no bank; train the mission first, or pass --checkpoints DIR/return_to_launch_site"
        )
    environment: Any = phases["entry"].guide_environment

    def first(key: Any, row: Any) -> dict[str, Any]:
        state = environment.enter(key, row)
        rest, wind = state.plan.predicted.rest, state.measured.wind
        propellant = state.measured.motion.propellant
        return {"rest_x": rest.x, "rest_y": rest.y, "wind_x": wind.x, "wind_y": wind.y, "propellant": propellant}

    count = len(jax.tree.leaves(bank.rows)[0])
    found = jax.jit(jax.vmap(first))(jax.random.split(jax.random.key(0), count), bank.rows)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def main() -> None:
    parser = common.parser(__doc__, peer=False)
    parser.add_argument("--checkpoints", type=Path, default=SHIPPED, help="folder of the mission's phases")
    options = parser.parse_args()
    found = first_predictions(options.checkpoints)
    causes = np.stack([np.ones_like(found["wind_x"]), found["wind_x"], found["wind_y"], found["propellant"] / 1e3], 1)
    causes[:, 3] -= causes[:, 3].mean()
    result: dict[str, Any] = {}
    miss = np.hypot(found["rest_x"], found["rest_y"])
    result["miss_m"] = dict(
        zip(("p50", "p95", "max"), np.percentile(miss, [50, 95, 100]).round().tolist(), strict=True)
    )
    print(f"{miss.size} vehicles at the start of the entry; predicted miss {result['miss_m']} m")
    for axis in ("x", "y"):
        rest = found[f"rest_{axis}"]
        weights = np.linalg.lstsq(causes, rest, rcond=None)[0]
        left = (rest - causes @ weights).std()
        names = ("mean_m", "wind_x_s", "wind_y_s", "per_tonne_m")
        result[axis] = dict(zip(names, weights.round(2).tolist(), strict=True)) | {
            "sd_m": rest.std(),
            "left_sd_m": left,
        }
        print(
            f"{axis}: {weights[0]:.0f} m, {weights[1]:+.1f} s x wind_x, {weights[2]:+.1f} s x wind_y, "
            f"{weights[3]:+.0f} m per tonne of propellant; standard deviation {rest.std():.0f} m, {left:.0f} m without these"
        )
    common.write_json(options.json, result)


if __name__ == "__main__":
    main()
