// The booster, in body axes: z towards the nose, the origin at its base. Metres.
import { BoxGeometry, ConeGeometry, CylinderGeometry, Group, Mesh, MeshBasicMaterial, MeshStandardMaterial } from "three";

const LENGTH = 42, RADIUS = 1.83, FIN_AT = 37, FLAME = 24;

const part = (geometry, material, parent, z = 0) => {
  const mesh = new Mesh(geometry, material);
  mesh.position.z = z;
  parent.add(mesh);
  return mesh;
};
const along = (geometry) => geometry.rotateX(Math.PI / 2); // three's cylinders stand on y

export function makeBooster() {
  const white = new MeshStandardMaterial({ color: 0xf1f1ee, roughness: 0.55 });
  const dark = new MeshStandardMaterial({ color: 0x30353a, roughness: 0.7 });
  const group = new Group();
  part(along(new CylinderGeometry(RADIUS, RADIUS, LENGTH - 9, 28)), white, group, 3 + (LENGTH - 9) / 2);
  part(along(new CylinderGeometry(RADIUS, RADIUS, 6, 28)), dark, group, LENGTH - 3);
  part(along(new CylinderGeometry(RADIUS, 1.95, 3, 28)), dark, group, 1.5);
  const fins = [0, 1, 2, 3].map((i) => {
    const arm = new Group();
    arm.rotation.z = (i * Math.PI) / 2;
    arm.position.z = FIN_AT;
    group.add(arm);
    const fin = part(new BoxGeometry(2.2, 1.5, 0.25), dark, arm);
    fin.position.x = RADIUS + 1.1;
    return fin;
  });
  const legs = [0, 1, 2, 3].map((i) => {
    const hinge = new Group();
    hinge.rotation.z = (i * Math.PI) / 2 + Math.PI / 4;
    const leg = new Group();
    leg.position.set(RADIUS, 0, 2.2);
    part(new BoxGeometry(0.35, 1.1, 10), dark, leg, 5);
    hinge.add(leg);
    group.add(hinge);
    return leg;
  });
  const nozzle = new Group();
  group.add(nozzle);
  const flame = part(along(new ConeGeometry(1.15, FLAME, 20, 1, true)).rotateX(Math.PI).translate(0, 0, -FLAME / 2), new MeshBasicMaterial({ color: 0xff8b2e, transparent: true, opacity: 0.85, depthWrite: false }), nozzle);
  const core = part(along(new ConeGeometry(0.6, FLAME * 0.6, 16, 1, true)).rotateX(Math.PI).translate(0, 0, -FLAME * 0.3), new MeshBasicMaterial({ color: 0xfff0c0, depthWrite: false }), nozzle);

  const radians = (degrees) => ((Number.isFinite(degrees) ? degrees : 0) * Math.PI) / 180;
  // Angles in degrees, throttle 0 to 1, legs 0 (folded) to 1 (down).
  group.pose = ({ throttle, gimbalPitch, gimbalYaw, finPitch, finYaw, finRoll, legsDown }) => {
    nozzle.visible = throttle > 0.01;
    flame.scale.set(0.7 + 0.3 * throttle, 0.7 + 0.3 * throttle, Math.max(0.25 + 0.75 * throttle, 0.01));
    core.scale.copy(flame.scale);
    nozzle.rotation.set(radians(gimbalPitch), radians(gimbalYaw), 0);
    fins.forEach((fin, i) => {
      const sign = i < 2 ? 1 : -1;
      fin.rotation.x = radians(finRoll) + sign * radians(i % 2 ? finPitch : finYaw);
    });
    legs.forEach((leg) => (leg.rotation.y = legsDown * 2.1));
  };
  return group;
}
