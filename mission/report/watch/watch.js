// Follows a training run: asks for its state, and for curves and flights when they have changed.
"use strict";
(() => {
  const by = (id) => document.getElementById(id), EVERY_MS = 1500;
  const number = (value, digits = 4) => value === null ? "–" : Number(value.toPrecision(digits)).toLocaleString("en");
  const percent = (value) => value === null ? "–" : `${(100 * value).toFixed(1)} %`;
  let version = null, flight = 0, shown = 0;

  const row = (phase) => {
    const line = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.textContent = phase.name;
    line.append(head);
    const steps = number(phase.env_steps, 12);
    const speed = phase.state === "training" ? number(phase.updates_per_s, 3) : "–";
    [[phase.state, "left"], [steps], [percent(phase.success)], [number(phase.returns)], [speed], [phase.gate || "–", "left"]].forEach(([text, side]) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (side) cell.className = side;
      line.append(cell);
    });
    return line;
  };
  const show = () => {
    shown = flight;
    by("newer").hidden = true;
    by("report").hidden = false;
    by("report").src = `/flight?${flight}`;
  };
  const look = async () => {
    const state = await (await fetch("/state")).json(), { run } = state;
    document.body.classList.toggle("running", run.running);
    document.body.classList.remove("lost");
    const at = run.phases.find((phase) => phase.state === "training");
    const done = run.phases.length > 0 && run.phases.every((phase) => phase.state === "done");
    by("status").textContent = run.running ? `Training${at ? ` ${at.name}` : ""}.` : done ? "No training runs; every phase that was begun is done." : "No training runs; it can be resumed.";
    if (run.version !== version) {
      by("rows").replaceChildren(...run.phases.map(row));
      const answer = await fetch("/training");
      if (answer.ok) { by("training").innerHTML = await answer.text(); version = run.version; }
    }
    by("note").textContent = state.flight.note;
    flight = state.flight.number;
    if (flight > shown) { if (by("follow").checked || !shown) show(); else by("newer").hidden = false; }
  };
  const follow = async () => {
    try { await look(); } catch (error) {
      document.body.classList.add("lost");
      by("status").textContent = "mission watch has ended; this page shows its last state.";
    }
    setTimeout(follow, EVERY_MS);
  };
  by("newer").onclick = show;
  by("larger").onclick = () => by("larger").setAttribute("aria-pressed", by("report").classList.toggle("large"));
  follow();
})();
