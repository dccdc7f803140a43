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
  const mission = (window.mission = { data, flights, flight: flights[0], other: null, zoom: null, time: 0, playing: false, phases: data.phases.map((p) => p.name) });

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
  mission.choose = (index) => { mission.flight = flights[index]; if (mission.other === mission.flight) mission.other = null; mission.time = Math.min(mission.time, mission.end()); notify(true); };
  mission.compare = (index) => { mission.other = index >= 0 && flights[index] !== mission.flight ? flights[index] : null; notify(true); };
  // The part of the time axis that charts show; null: all of it.
  mission.show = (range) => { mission.zoom = range && range[1] > range[0] ? range : null; notify(true); };
  mission.magnify = (factor) => {
    const end = Math.max(...flights.map(mission.end)), [low, high] = mission.zoom || [0, end], width = (high - low) * factor;
    if (width >= end) { mission.show(null); return; }
    const from = Math.min(Math.max(mission.time - width * (mission.time - low) / (high - low || 1), 0), end - width);
    mission.show([from, from + Math.max(width, 0.05)]);
  };
  if (!flights.length) { by("player")?.remove(); return; }

  const slider = by("time"), select = by("flight"), other = by("other"), play = by("play"), speed = by("speed"), clock = by("clock");
  flights.forEach((flight, i) => select.add(new Option(`${flight.role} · flight ${flight.number} · ${flight.outcome}`, i)));
  other.add(new Option("compare with: –", -1));
  flights.forEach((flight, i) => other.add(new Option(`compare with: ${flight.role} · flight ${flight.number} · ${flight.outcome}`, i)));
  select.onchange = () => mission.choose(Number(select.value));
  other.onchange = () => mission.compare(Number(other.value));
  by("zoom-in").onclick = () => mission.magnify(0.5);
  by("zoom-out").onclick = () => mission.magnify(2);
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
    slider.setAttribute("aria-valuetext", clock.textContent);
    if (!changed) return;
    select.value = flights.indexOf(mission.flight);
    other.value = mission.other ? flights.indexOf(mission.other) : -1;
    [...other.options].forEach((option) => (option.disabled = Number(option.value) === flights.indexOf(mission.flight)));
    by("zoom-out").disabled = !mission.zoom;
  });

  const svg = (name, attributes, parent) => { const node = document.createElementNS("http://www.w3.org/2000/svg", name); for (const key in attributes) node.setAttribute(key, attributes[key]); parent.append(node); return node; };
  const show = (value) => Number.isNaN(value) ? "–" : Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  const ticks = (low, high, most) => { // as nice_ticks of charts.py
    const raw = (high - low) / Math.max(most - 1, 1), power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((width) => width >= 0.999 * raw) || raw, found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step && found.length <= most; i++) found.push(Number((i * step).toPrecision(12)));
    return found;
  };
  const curve = (flight, along, name, px, py) => {
    let path = "";
    for (const track of flight.tracks) {
      const xs = along === "time" ? track.time : track.channels[along], ys = track.channels[name];
      let pen = "M";
      if (xs && ys) for (let j = 0; j < ys.length; j++) {
        if (!Number.isFinite(xs[j]) || !Number.isFinite(ys[j])) { pen = "M"; continue; }
        path += pen + px(xs[j]).toFixed(1) + " " + py(ys[j]).toFixed(1);
        pen = "L";
      }
    }
    return path;
  };
  // The range of the values that are drawn between two times; null if there is none.
  const spread = (names, low, high) => {
    let least = Infinity, most = -Infinity;
    for (const flight of [mission.flight, mission.other]) for (const track of flight ? flight.tracks : []) for (const name of names) {
      const values = track.channels[name];
      if (values) track.time.forEach((time, j) => { if (time >= low && time <= high && Number.isFinite(values[j])) { least = Math.min(least, values[j]); most = Math.max(most, values[j]); } });
    }
    const room = most > least ? 0.08 * (most - least) : Math.max(Math.abs(most), 1) * 0.05;
    return least <= most ? [least - room, most + room] : null;
  };

  document.querySelectorAll(".chart[data-box]").forEach((figure) => {
    const [left, top, right, bottom, ...whole] = figure.dataset.box.split(" ").map(Number);
    const channels = figure.dataset.channels.split(" "), along = figure.dataset.x, timed = along === "time";
    const drawing = figure.querySelector("svg"), plot = drawing.querySelector(".plot"), scale = drawing.querySelector(".ticks"), everything = scale.innerHTML;
    let [x0, x1, y0, y1] = whole, own = null; // own: the zoom of a chart over another axis than time
    const px = (v) => left + (v - x0) / (x1 - x0) * (right - left), py = (v) => bottom - (v - y0) / (y1 - y0) * (bottom - top);
    const id = "clip" + Math.random().toString(36).slice(2), clip = svg("clipPath", { id }, drawing);
    svg("rect", { x: left, y: top - 2, width: right - left, height: bottom - top + 4 }, clip);
    const shapes = [...plot.children].filter((node) => node.tagName !== "text");
    const words = [...plot.querySelectorAll(":scope > text")].map((node) => [node, Number(node.getAttribute("x")), Number(node.getAttribute("y"))]);
    const back = document.createElementNS("http://www.w3.org/2000/svg", "g");
    back.append(...shapes);
    plot.prepend(back);
    plot.setAttribute("clip-path", `url(#${id})`);
    words.forEach(([node]) => drawing.append(node)); // names above the plot stay outside of the clip
    const layer = svg("g", { "clip-path": `url(#${id})` }, drawing);
    const dashed = channels.map((_, i) => svg("path", { class: `line flight other c${i}` }, layer));
    const lines = channels.map((_, i) => svg("path", { class: `line flight c${i}` }, layer));
    const cursor = timed ? svg("path", { class: "cursor" }, layer) : null;
    const spots = channels.map((_, i) => svg("circle", { class: `spot c${i}`, r: 3.5 }, layer));
    const chosen = svg("rect", { class: "chosen", y: top, height: bottom - top, visibility: "hidden" }, layer);
    const now = figure.querySelector("figcaption").appendChild(document.createElement("span"));
    now.className = "now";

    const rescale = () => {
      const zoom = timed ? mission.zoom : own, fitted = zoom && timed ? spread(channels, ...zoom) : null;
      const [a0, a1, b0, b1] = whole;
      [x0, x1, y0, y1] = zoom ? [zoom[0], zoom[1], ...(fitted || [b0, b1])] : whole;
      const sx = (a1 - a0) / (x1 - x0), sy = (b1 - b0) / (y1 - y0);
      const dx = left - sx * (left + (x0 - a0) / (a1 - a0) * (right - left)), dy = bottom - sy * (bottom - (y0 - b0) / (b1 - b0) * (bottom - top));
      if (zoom) back.setAttribute("transform", `matrix(${sx} 0 0 ${sy} ${dx} ${dy})`); else back.removeAttribute("transform");
      words.forEach(([node, x, y]) => {
        const along = node.classList.contains("limit");  // at a height; the others are at the top, over a time
        node.setAttribute("x", zoom && !along ? sx * x + dx : x);
        node.setAttribute("y", zoom && along ? sy * y + dy : y);
        const at = Number(node.getAttribute("x")), high = Number(node.getAttribute("y"));
        node.setAttribute("visibility", at < left - 1 || at > right + 1 || high < top - 12 || high > bottom ? "hidden" : "visible");
      });
      if (!zoom) { scale.innerHTML = everything; return; }
      scale.replaceChildren();
      const text = (value, attributes) => (svg("text", attributes, scale).textContent = show(value));
      for (const value of ticks(x0, x1, 6)) { svg("path", { class: "grid", d: `M${px(value)} ${top}V${bottom}` }, scale); text(value, { x: px(value), y: bottom + 13, "text-anchor": "middle" }); }
      for (const value of ticks(y0, y1, 5)) { svg("path", { class: "grid", d: `M${left} ${py(value)}H${right}` }, scale); text(value, { x: left - 5, y: py(value) + 4, "text-anchor": "end" }); }
    };
    let drawn = null, visible = false;
    const draw = () => {
      if (!visible) return;
      const want = [mission.flight, mission.other, timed ? mission.zoom : own];
      if (!drawn || want.some((part, i) => part !== drawn[i])) {
        drawn = want;
        rescale();
        channels.forEach((name, i) => {
          lines[i].setAttribute("d", curve(mission.flight, along, name, px, py));
          dashed[i].setAttribute("d", mission.other ? curve(mission.other, along, name, px, py) : "");
        });
      }
      const at = timed ? mission.time : mission.value(along), values = channels.map((name) => mission.value(name));
      if (cursor) cursor.setAttribute("d", `M${px(at).toFixed(1)} ${top}V${bottom}`);
      values.forEach((value, i) => { const there = Number.isFinite(value) && Number.isFinite(at); spots[i].setAttribute("visibility", there ? "visible" : "hidden"); if (there) { spots[i].setAttribute("cx", px(at).toFixed(1)); spots[i].setAttribute("cy", py(value).toFixed(1)); } });
      const others = mission.other ? `, other ${channels.map((name) => show(mission.value(name, mission.time, mission.other))).join(" / ")}` : "";
      now.textContent = values.map(show).join(" / ") + others;
    };
    new IntersectionObserver((entries) => { visible = entries[entries.length - 1].isIntersecting; draw(); }, { rootMargin: "200px" }).observe(figure);
    mission.on(draw);
    addEventListener("beforeprint", () => { visible = true; draw(); });

    // A click moves the clock, a drag zooms to what it covers, a double click shows everything again.
    const value = (event) => { const box = drawing.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * drawing.viewBox.baseVal.width; return x0 + (Math.min(Math.max(x, left), right) - left) / (right - left) * (x1 - x0); };
    const zoom = (range) => { if (timed) mission.show(range); else { own = range; draw(); } };
    const seek = (time) => { mission.playing = false; mission.seek(time); };
    let from = null;
    const wide = (to) => Math.abs(px(to) - px(from)) > 8;
    drawing.addEventListener("pointerdown", (event) => { if (event.button === 0) { from = value(event); if (timed) seek(from); if (event.pointerType !== "touch") drawing.setPointerCapture(event.pointerId); } });
    drawing.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = value(event);
      if (event.pointerType === "touch") { if (timed) seek(to); return; }
      chosen.setAttribute("visibility", wide(to) ? "visible" : "hidden");
      chosen.setAttribute("x", Math.min(px(from), px(to)));
      chosen.setAttribute("width", Math.abs(px(to) - px(from)));
    });
    const release = (event) => {
      if (from !== null && event.type === "pointerup" && event.pointerType !== "touch") { const to = value(event); if (wide(to)) zoom([Math.min(from, to), Math.max(from, to)]); }
      from = null;
      chosen.setAttribute("visibility", "hidden");
    };
    drawing.addEventListener("pointerup", release);
    drawing.addEventListener("pointercancel", release);
    drawing.addEventListener("dblclick", () => zoom(null));
    figure.addEventListener("keydown", (event) => {
      const step = (x1 - x0) / (event.shiftKey ? 10 : 100), range = own || [whole[0], whole[1]];
      const keys = { "0": () => zoom(null), "+": () => timed && mission.magnify(0.5), "=": () => timed && mission.magnify(0.5), "-": () => timed && mission.magnify(2) };
      if (timed) Object.assign(keys, { ArrowLeft: () => seek(mission.time - step), ArrowRight: () => seek(mission.time + step), Home: () => seek(0), End: () => seek(mission.end()) });
      else Object.assign(keys, { "+": () => { const c = mission.value(along), w = (range[1] - range[0]) / 4; if (Number.isFinite(c)) zoom([c - w, c + w]); } });
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
  });

  // The table of differences between the two flights.
  const table = by("differences");
  if (table) {
    const names = [...new Set(data.phases.flatMap((phase) => phase.channels))], rows = new Map();
    let pair = [null, null];
    const cells = (line, texts) => texts.forEach((text, i) => { (line.cells[i + 1] || line.insertCell()).textContent = text; });
    const largest = (name) => { // over the common time, on the samples of the first flight
      let most = 0, when = NaN;
      const until = Math.min(mission.end(), mission.end(mission.other));
      for (const track of mission.flight.tracks) track.time.forEach((time) => {
        const gap = Math.abs(mission.value(name, time, mission.other) - mission.value(name, time));
        if (time <= until && gap > most) { most = gap; when = time; }
      });
      return [most, when];
    };
    mission.on(() => {
      by("compare-none").hidden = mission.other !== null;
      by("compare-table").hidden = mission.other === null;
      if (!mission.other) { pair = [null, null]; return; }
      if (pair[0] !== mission.flight || pair[1] !== mission.other) {
        pair = [mission.flight, mission.other];
        rows.clear();
        table.tBodies[0].replaceChildren();
        by("compare-who").textContent = `A: ${pair[0].role}, flight ${pair[0].number} (${pair[0].outcome}). B: ${pair[1].role}, flight ${pair[1].number} (${pair[1].outcome}), dashed in the charts.`;
        const ends = pair.map((flight) => mission.end(flight));
        for (const name of names) {
          const last = pair.map((flight, i) => mission.value(name, ends[i], flight));
          const [most, when] = largest(name);
          if (last.every(Number.isNaN) && Number.isNaN(when)) continue;
          const line = table.tBodies[0].insertRow(), head = document.createElement("th");
          head.scope = "row";
          head.textContent = name;
          line.append(head);
          rows.set(name, line);
          cells(line, ["", "", "", Number.isNaN(when) ? "–" : `${show(most)} at ${when.toFixed(1)} s`, show(last[0]), show(last[1]), show(last[1] - last[0])]);
        }
      }
      for (const [name, line] of rows) {
        const a = mission.value(name), b = mission.time <= mission.end(mission.other) ? mission.value(name, mission.time, mission.other) : NaN;
        cells(line, [show(a), show(b), show(b - a)]);
      }
    });
  }
})();
