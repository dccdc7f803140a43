"""The 3-D replay: the HTML for `replay.js`, which the script of the page synchronises with its slider."""

from __future__ import annotations

from pathlib import Path

from mission import FlightRecords, Section

_FOLDER = Path(__file__).parent
_PLACES = ({"position_z_m"}, {"altitude_m"}, {"height_m"})
# label, unit, channels of which the first that a phase has is shown, scale, digits
_READOUT = (
    ("altitude", "km", "altitude_m height_m position_z_m", 1e-3, 2),
    ("downrange", "km", "downrange_m position_x_m", 1e-3, 2),
    ("speed", "m/s", "speed_m_s", 1, 1),
    ("vertical speed", "m/s", "vertical_speed_m_s velocity_z_m_s velocity_m_s", 1, 1),
    ("Mach", "", "mach", 1, 2),
    ("dynamic pressure", "kPa", "dynamic_pressure_pa", 1e-3, 1),
    ("throttle", "%", "throttle", 100, 0),
    ("tilt", "deg", "tilt_deg", 1, 1),
    ("incidence", "deg", "incidence_deg", 1, 1),
    ("axial load", "m/s2", "axial_load_m_s2", 1, 1),
    ("mass", "t", "mass_kg", 1e-3, 2),
    ("propellant", "t", "propellant_kg", 1e-3, 2),
)
STYLE = """
#replay { display: grid; grid-template-columns: minmax(0, 1fr) 230px; gap: 12px; }
#replay .stage { position: relative; height: min(62vh, 560px); border-radius: 8px; overflow: hidden; background: #10151b; }
@media print { #replay { display: block; } #replay .stage { display: none; } #replay .printed { max-height: 90mm; margin: 0 auto 8px; } }
#replay canvas:focus-visible { outline: 2px solid #6ba6ff; outline-offset: -3px; }
#replay canvas { width: 100%; height: 100%; display: block; touch-action: none; } #replay .stage p { padding: 20px; color: #cfd6dc; }
#replay .chips { position: absolute; left: 10px; top: 10px; right: 10px; display: flex; flex-wrap: wrap; gap: 6px; pointer-events: none; }
#replay .chips button { pointer-events: auto; font: 12.5px system-ui, sans-serif; color: #e9edf0; background: #0b0f14b0; border: 0; border-left: 4px solid var(--chip); border-radius: 4px; padding: 3px 8px; cursor: pointer; } #replay .chips .on { background: #2a3947f0; }
#replay .tools { display: flex; gap: 8px; align-items: center; margin-bottom: 8px; font-size: 13.5px; } #replay .tools select { flex: 1; }
#replay table { min-width: 0; width: 100%; } #replay td, #replay th { padding: 3px 0; white-space: normal; } #replay th { color: inherit; font-weight: 400; } #replay td { white-space: nowrap; }
@media (max-width: 760px) { #replay { grid-template-columns: minmax(0, 1fr); } #replay .stage { height: 54vh; }
  #replay table { display: block; } #replay tbody { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 0 16px; } #replay tr { display: flex; justify-content: space-between; border-bottom: 1px solid var(--edge); } #replay td, #replay th { border: 0; } }
"""


def replay(records: FlightRecords) -> tuple[Section, ...]:
    """Return the section of the replay; empty without a position channel or a chosen flight."""
    known = set(records.channels())
    if not records.chosen or not any(place <= known for place in _PLACES):
        return ()
    rows = "".join(
        f'<tr><th scope="row">{label}</th><td><span data-value="{channels}" data-scale="{scale:g}" data-digits="{digits}">-</span> {unit}</td></tr>'
        for label, unit, channels, scale, digits in _READOUT
        if known & set(channels.split())
    )
    html = (
        '<div id="replay"><div class="stage"><canvas role="img" tabindex="0" aria-label="3-D replay: arrow keys turn the camera, plus and minus move it"></canvas><div class="chips"></div></div>'
        '<div class="card"><div class="tools"><label for="replay-view">camera</label><select id="replay-view">'
        '<option value="overview">overview</option><option value="follow">follow</option>'
        f'<option value="free">free, from here</option></select></div><table>{rows}</table></div></div>'
    )
    script, notice = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("replay.js", "three.LICENSE.txt"))
    return (Section("Replay", html, STYLE, (script,), (f"three.js\n\n{notice}",)),)
