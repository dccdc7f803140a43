// The chosen flight and its clock; every chart follows both. A section follows them with mission.on(draw).
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("mission-data").textContent);
  const floats = (text) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Float32Array(bytes.buffer);
  };
  const flights = data.flights.map((flight) => ({
    ...flight,
    tracks: flight.tracks.map((track) => {
      const time = floats(track.time), table = floats(track.table), channels = {};
      data.phases[track.phase].channels.forEach((name, i) => (channels[name] = table.subarray(i * time.length, (i + 1) * time.length)));
      return { phase: data.phases[track.phase].name, index: track.phase, time, channels };
    }),
  }));
  const listeners = [], by = (id) => document.getElementById(id);
  const mission = (window.mission = { data, flights, flight: flights[0], time: 0, playing: false, phases: data.phases.map((p) => p.name) });

  mission.on = (listener) => { listeners.push(listener); listener(true); };
  mission.end = (flight = mission.flight) => { const last = flight.tracks[flight.tracks.length - 1]; return last ? last.time[last.time.length - 1] : 0; };
  mission.track = (time = mission.time, flight = mission.flight) => flight.tracks.find((t) => time <= t.time[t.time.length - 1]) || flight.tracks[flight.tracks.length - 1];
  // Returns the indices of the samples before and after a time, and the weight of the latter.
  mission.place = (track, time) => {
    let low = 0, high = track.time.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (track.time[middle] <= time) low = middle; else high = middle; }
    const gap = track.time[high] - track.time[low];
    return [low, high, gap > 0 ? Math.min(Math.max((time - track.time[low]) / gap, 0), 1) : 0];
  };
  mission.value = (channel, time = mission.time, flight = mission.flight) => {
    const track = mission.track(time, flight), values = track && track.channels[channel];
    if (!values) return NaN;
    const [low, high, share] = mission.place(track, time);
    return values[low] + share * (values[high] - values[low]);
  };
  const notify = (changed) => listeners.forEach((listener) => listener(changed));
  mission.seek = (time) => { mission.time = Math.min(Math.max(time, 0), mission.end()); notify(false); };
  mission.choose = (index) => { mission.flight = flights[index]; mission.time = Math.min(mission.time, mission.end()); notify(true); };
  if (!flights.length) return;

  const slider = by("time"), select = by("flight"), play = by("play"), speed = by("speed"), clock = by("clock");
  flights.forEach((flight, i) => select.add(new Option(`${flight.role} · flight ${flight.number} · ${flight.outcome}`, i)));
  select.onchange = () => mission.choose(Number(select.value));
  slider.oninput = () => { mission.playing = false; mission.seek(Number(slider.value) * mission.end() / 1000); };
  let last = 0;
  const tick = (now) => {
    if (!mission.playing) return;
    mission.seek(mission.time + Math.min(now - last, 200) / 1000 * Number(speed.value));
    last = now;
    if (mission.time >= mission.end()) { mission.playing = false; notify(false); } else requestAnimationFrame(tick);
  };
  play.onclick = () => {
    mission.playing = !mission.playing;
    if (mission.playing) { if (mission.time >= mission.end()) mission.time = 0; last = performance.now(); requestAnimationFrame(tick); }
    notify(false);
  };
  mission.on((changed) => {
    const end = mission.end(), track = mission.track();
    slider.value = end > 0 ? 1000 * mission.time / end : 0;
    play.textContent = mission.playing ? "Pause" : "Play";
    clock.textContent = `${mission.time.toFixed(1)} of ${end.toFixed(1)} s · ${track ? track.phase : ""}`;
    if (changed) select.value = flights.indexOf(mission.flight);
  });

  const svg = (name, attributes, parent) => { const node = document.createElementNS("http://www.w3.org/2000/svg", name); for (const key in attributes) node.setAttribute(key, attributes[key]); parent.append(node); return node; };
  const show = (value) => Number.isNaN(value) ? "–" : Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  document.querySelectorAll(".chart[data-box]").forEach((figure) => {
    const [left, top, right, bottom, x0, x1, y0, y1] = figure.dataset.box.split(" ").map(Number);
    const channels = figure.dataset.channels.split(" "), along = figure.dataset.x, timed = along === "time";
    const drawing = figure.querySelector("svg"), plot = drawing.querySelector(".plot");
    const px = (v) => left + (v - x0) / (x1 - x0) * (right - left), py = (v) => bottom - (v - y0) / (y1 - y0) * (bottom - top);
    const id = "clip" + Math.random().toString(36).slice(2), clip = svg("clipPath", { id }, drawing);
    svg("rect", { x: left, y: top - 2, width: right - left, height: bottom - top + 4 }, clip);
    const layer = svg("g", { "clip-path": `url(#${id})` }, plot);
    const lines = channels.map((_, i) => svg("path", { class: `line flight c${i}` }, layer));
    const cursor = timed ? svg("path", { class: "cursor" }, layer) : null;
    const spots = channels.map((_, i) => svg("circle", { class: `spot c${i}`, r: 3.5 }, layer));
    const now = figure.querySelector("figcaption").appendChild(document.createElement("span"));
    now.className = "now";
    let drawn = null, visible = false;
    const draw = () => {
      if (!visible) return;
      if (drawn !== mission.flight) {
        drawn = mission.flight;
        channels.forEach((name, i) => {
          let path = "";
          for (const track of drawn.tracks) {
            const xs = timed ? track.time : track.channels[along], ys = track.channels[name];
            let pen = "M";
            if (xs && ys) for (let j = 0; j < ys.length; j++) {
              if (!Number.isFinite(xs[j]) || !Number.isFinite(ys[j])) { pen = "M"; continue; }
              path += pen + px(xs[j]).toFixed(1) + " " + py(ys[j]).toFixed(1);
              pen = "L";
            }
          }
          lines[i].setAttribute("d", path);
        });
      }
      const at = timed ? mission.time : mission.value(along), values = channels.map((name) => mission.value(name));
      if (cursor) cursor.setAttribute("d", `M${px(at).toFixed(1)} ${top}V${bottom}`);
      values.forEach((value, i) => { const there = Number.isFinite(value) && Number.isFinite(at); spots[i].setAttribute("visibility", there ? "visible" : "hidden"); if (there) { spots[i].setAttribute("cx", px(at).toFixed(1)); spots[i].setAttribute("cy", py(value).toFixed(1)); } });
      now.textContent = values.map(show).join(" / ");
    };
    new IntersectionObserver((entries) => { visible = entries[entries.length - 1].isIntersecting; draw(); }, { rootMargin: "200px" }).observe(figure);
    mission.on(draw);
    if (timed) {
      const seek = (event) => { const box = drawing.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * drawing.viewBox.baseVal.width; mission.playing = false; mission.seek(x0 + (x - left) / (right - left) * (x1 - x0)); };
      drawing.addEventListener("pointerdown", seek);
      drawing.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
    }
  });
})();
