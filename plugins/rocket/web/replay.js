// 3-D replay of the chosen flight. Local frame: x downrange (east), y north, z up, the pad at the origin.
import { AmbientLight, BufferAttribute, BufferGeometry, CircleGeometry, CanvasTexture, Color, DirectionalLight, Group, LineBasicMaterial, LineLoop, Mesh, MeshBasicMaterial, PerspectiveCamera, Points, PointsMaterial, Quaternion, RingGeometry, Scene, Spherical, Vector3, WebGLRenderer } from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { Line2 } from "three/addons/lines/Line2.js";
import { LineGeometry } from "three/addons/lines/LineGeometry.js";
import { LineMaterial } from "three/addons/lines/LineMaterial.js";
import { makeBooster } from "./booster.js";

const mission = window.mission, holder = document.getElementById("replay");
const PHASES = ["#4c9dff", "#f0a13c", "#b48cff", "#ff6f61", "#45c486", "#e6d04a", "#5fd3e6"];
const SPACE = new Color(0x05070c), SKY = new Color(0x8fb6de), DUSK = new Color(0x24384f);

// The first of several ways to say where a vehicle is.
const PLACES = [["position_x_m", "position_y_m", "position_z_m"], ["downrange_m", "crossrange_m", "altitude_m"], ["", "", "altitude_m"], ["", "", "height_m"]];
// Flat things on the ground are drawn in this order, without depth, so that they do not flicker.
const flat = (object, order) => { object.renderOrder = order; object.material.depthWrite = false; return object; };
function disc() {
  const picture = document.createElement("canvas"), size = (picture.width = picture.height = 32), pen = picture.getContext("2d");
  pen.fillStyle = "#fff";
  pen.arc(size / 2, size / 2, size / 2 - 1, 0, 7);
  pen.fill();
  return new CanvasTexture(picture);
}
const names = (track) => PLACES.find((axes) => axes.every((name) => !name || track.channels[name]));
const first = (channels, time, flight) => { for (const name of channels) { const value = mission.value(name, time, flight); if (Number.isFinite(value)) return value; } return NaN; };

function point(track, i, j = i, share = 0) {
  const axes = names(track);
  if (!axes) return new Vector3();
  return new Vector3(...axes.map((name) => { const values = track.channels[name]; return values ? values[i] + share * (values[j] - values[i]) : 0; }));
}

function attitude(track, i, j, share) {
  const c = track.channels, at = (k) => new Quaternion(c.attitude_x[k], c.attitude_y[k], c.attitude_z[k], c.attitude_w[k]);
  return c.attitude_w && c.attitude_x && c.attitude_y && c.attitude_z ? at(i).slerp(at(j), share) : new Quaternion();
}

// Where no channel says what the engines do, a falling mass does.
function throttle(track, i, j, flight) {
  const value = mission.value("throttle", mission.time, flight), mass = track.channels.mass_kg;
  if (Number.isFinite(value)) return Math.min(Math.max(value, 0), 1);
  return mass && j > i && mass[i] - mass[j] > 1e-3 * (track.time[j] - track.time[i]) ? 1 : 0;
}

function start() {
  const canvas = holder.querySelector("canvas");
  const renderer = new WebGLRenderer({ canvas, antialias: true, logarithmicDepthBuffer: true });
  const scene = new Scene(), camera = new PerspectiveCamera(45, 1, 0.5, 3e6), local = new Group();
  local.rotation.x = -Math.PI / 2; // z up in here
  scene.add(local, new AmbientLight(0xffffff, 1.1));
  const sun = new DirectionalLight(0xffffff, 2.2);
  sun.position.set(-0.6, 1, 0.5);
  scene.add(sun);

  const ground = new Mesh(new CircleGeometry(4e5, 96), new MeshBasicMaterial({ color: 0x55654f }));
  ground.position.z = -0.6;
  local.add(flat(ground, -9));
  const ring = (radius) => {
    const points = Array.from({ length: 96 }, (_, i) => new Vector3(radius * Math.cos(i * Math.PI / 48), radius * Math.sin(i * Math.PI / 48), 0));
    local.add(flat(new LineLoop(new BufferGeometry().setFromPoints(points), new LineBasicMaterial({ color: 0x93a08d, depthTest: false })), -8));
  };
  const pad = new Mesh(new CircleGeometry(26, 48), new MeshBasicMaterial({ color: 0x7d8388 }));
  pad.position.z = -0.3;
  const inner = new Mesh(new RingGeometry(9, 10, 48), new MeshBasicMaterial({ color: 0xf5f5f0 }));
  inner.position.z = -0.1;
  local.add(flat(pad, -7), flat(inner, -6));
  for (const radius of [100, 1000, 5000, 10000, 25000, 50000]) ring(radius);

  const booster = makeBooster(), paths = new Group();
  const ghost = makeBooster(); // the flight to compare with
  ghost.traverse((part) => { if (part.material) { part.material.transparent = true; part.material.opacity *= 0.45; } });
  ghost.visible = false;
  const dot = new Points(new BufferGeometry().setAttribute("position", new BufferAttribute(new Float32Array(3), 3)), new PointsMaterial({ color: 0xffffff, size: 10, sizeAttenuation: false, depthTest: false, transparent: true, map: disc() }));
  const mark = new Points(new BufferGeometry().setAttribute("position", new BufferAttribute(new Float32Array(3), 3)), new PointsMaterial({ color: 0xffb35c, size: 9, sizeAttenuation: false, depthTest: false, transparent: true, map: disc() }));
  mark.visible = false;
  local.add(paths, booster, ghost, dot, mark);

  const controls = new OrbitControls(camera, canvas);
  controls.maxDistance = 8e5;
  controls.minDistance = 15;
  const view = holder.querySelector("#replay-view"), world = (v) => v.clone().applyEuler(local.rotation);
  let target = new Vector3(), size = 1000;

  const trace = () => {
    for (const line of paths.children) { line.geometry.dispose(); line.material.dispose(); }
    paths.clear();
    const low = new Vector3(Infinity, Infinity, Infinity), high = low.clone().negate();
    for (const flight of [mission.flight, mission.other]) for (const track of flight ? flight.tracks : []) {
      const points = Array.from(track.time, (_, i) => point(track, i)), other = flight === mission.other;
      for (const p of points) { low.min(p); high.max(p); }
      if (points.length < 2) continue;
      const line = new Line2(new LineGeometry().setPositions(points.flatMap((p) => [p.x, p.y, p.z])), new LineMaterial({ color: PHASES[track.index % PHASES.length], linewidth: other ? 1.5 : 2.5, transparent: other, opacity: other ? 0.6 : 1 }));
      paths.add(line);
    }
    low.min(new Vector3()); high.max(new Vector3());
    size = Math.max(high.distanceTo(low), 50);
    target = world(low.add(high).multiplyScalar(0.5));
  };
  const place = () => { // the camera, when a view is chosen
    fit();
    const here = world(booster.position);
    if (view.value === "overview") { controls.target.copy(target); camera.position.copy(target).add(new Vector3(0.25, 0.2, 1).normalize().multiplyScalar(1.45 * size * Math.max(1, 1 / camera.aspect))); }
    else { controls.target.copy(here).add(new Vector3(0, 18, 0)); camera.position.copy(here).add(new Vector3(55, 42, 105)); }
    if (camera.position.y < 3) camera.position.y = 3;
    controls.update();
  };
  let seen = null, rival = null, before = new Vector3(), queued = false;
  const fit = () => {
    const box = holder.querySelector(".stage").getBoundingClientRect();
    const width = Math.max(1, Math.round(box.width)), height = Math.max(1, Math.round(box.height));
    if (canvas.width !== width * renderer.getPixelRatio() || canvas.height !== height * renderer.getPixelRatio()) {
      renderer.setSize(width, height, false);
      camera.aspect = width / height;
      camera.updateProjectionMatrix();
    }
  };
  const render = () => {
    queued = false;
    fit();
    const height_m = booster.position.z, dark = matchMedia("(prefers-color-scheme: dark)").matches, sky = dark ? DUSK : SKY;
    ground.material.color.set(dark ? 0x2c3730 : 0x55654f);
    scene.background = sky.clone().lerp(SPACE, Math.min(Math.max((view.value === "overview" ? size / 4 : height_m) / 6e4, 0), 1));
    dot.visible = camera.position.distanceTo(world(booster.position)) > 1500;
    mark.visible = ghost.visible && camera.position.distanceTo(world(ghost.position)) > 1500;
    renderer.render(scene, camera);
    holder.dataset.ready ||= performance.now().toFixed(0);
  };
  const soon = () => { if (!queued) { queued = true; requestAnimationFrame(() => queued && render()); } }; // once a frame, however often asked
  const set = (model, flight) => {
    const track = mission.track(mission.time, flight), [i, j, share] = mission.place(track, mission.time);
    const value = (name) => mission.value(name, mission.time, flight);
    model.position.copy(point(track, i, j, share));
    model.quaternion.copy(attitude(track, i, j, share));
    model.pose({ throttle: throttle(track, i, j, flight), gimbalPitch: value("gimbal_pitch_deg"), gimbalYaw: value("gimbal_yaw_deg"), finPitch: value("fin_pitch_deg"), finYaw: value("fin_yaw_deg"), finRoll: value("fin_roll_deg"), legsDown: Math.min(Math.max(1.5 - model.position.z / 200, 0), 1) * (track.index === mission.phases.length - 1 ? 1 : 0) });
  };
  const move = () => {
    if (!mission.track()) return;
    set(booster, mission.flight);
    dot.position.copy(booster.position);
    ghost.visible = mission.other !== null && mission.other !== undefined;
    if (ghost.visible) { set(ghost, mission.other); mark.position.copy(ghost.position); }
  };
  const rows = [...holder.querySelectorAll("[data-value]")];
  const read = () => rows.forEach((row) => {
    const value = first(row.dataset.value.split(" "), mission.time) * Number(row.dataset.scale || 1);
    row.textContent = Number.isFinite(value) ? value.toLocaleString("en", { maximumFractionDigits: Number(row.dataset.digits || 1), minimumFractionDigits: Number(row.dataset.digits || 1) }) : "-";
  });
  const chips = holder.querySelector(".chips");
  const draw = (changed) => {
    if (seen !== mission.flight || rival !== mission.other) {
      seen = mission.flight;
      rival = mission.other;
      trace();
      chips.replaceChildren(...seen.tracks.map((track) => {
        const chip = document.createElement("button");
        chip.style.setProperty("--chip", PHASES[track.index % PHASES.length]);
        chip.textContent = track.phase;
        chip.onclick = () => mission.seek(track.time[0] + 1e-3);
        return chip;
      }));
      move();
      place();
    }
    move();
    const here = world(booster.position);
    if (view.value === "follow") { const shift = here.clone().sub(before); controls.target.add(shift); camera.position.add(shift); }
    before.copy(here);
    read();
    [...chips.children].forEach((chip, i) => chip.classList.toggle("on", seen.tracks[i] === mission.track()));
    soon();
  };
  view.onchange = () => { place(); soon(); };
  canvas.addEventListener("keydown", (event) => { // the camera turns about its target, and comes closer
    const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key], near = { "+": 0.8, "=": 0.8, "-": 1.25 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(turn || near)) return;
    event.preventDefault();
    const arm = new Spherical().setFromVector3(camera.position.clone().sub(controls.target));
    if (turn) { arm.theta += 0.1 * turn[0]; arm.phi = Math.min(Math.max(arm.phi + 0.1 * turn[1], 0.05), 1.55); }
    arm.radius *= near || 1;
    camera.position.setFromSpherical(arm).add(controls.target);
    controls.update();
    soon();
  });
  let printed = null; // a browser prints a canvas of WebGL empty, so its picture is printed
  addEventListener("beforeprint", () => {
    render();
    printed ||= holder.appendChild(Object.assign(new Image(), { className: "printed", alt: "the replay at the chosen time" }));
    printed.src = canvas.toDataURL("image/jpeg", 0.85);
  });
  before.copy(world(booster.position));
  mission.on(draw);
  before.copy(world(booster.position));
  controls.addEventListener("change", soon);
  new ResizeObserver(soon).observe(holder.querySelector(".stage"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
  mission.replay = { render, booster, ghost, camera, canvas };
}

if (holder && mission && mission.flight) {
  try { start(); } catch (error) { holder.querySelector(".stage").innerHTML = "<p class=soft>This browser gives no WebGL: the replay is left out, the charts work without it.</p>"; console.info(String(error)); }
}
