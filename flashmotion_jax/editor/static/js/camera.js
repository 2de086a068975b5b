// Camera presets over the whole video. The server moves the boxes, see trajectory/camera.py.

import { api, jsonFile } from "./api.js";
import { field, showDialog } from "./dialogs.js";
import { h, say } from "./dom.js";
import { toTrajectory } from "./motion.js";
import { addObject } from "./project.js";

const NUMBERS = {
  right: ["Picture moves right, % of the width", 0],
  down: ["Picture moves down, % of the height", 0],
  zoom: ["Zoom, % of the size", 100],
  roll: ["Roll clockwise, degrees", 0],
  dolly: ["Dolly, % of the distance of depth 1", 0],
};

export function showCameraPresets(store) {
  const { objects } = store.project;
  const numbers = Object.fromEntries(Object.entries(NUMBERS).map(([name, [, value]]) => [name, number(`camera-${name}`, value)]));
  const anchors = h("input", { type: "checkbox", id: "camera-anchors", checked: true });
  const depths = objects.map((object) => [object.id, number(`camera-depth-${object.id}`, 1)]);
  const background = number("camera-depth-background", 1);
  showDialog("Camera presets", [
    h("p", { className: "hint" }, "The objects move as the camera would show them, in addition to their own motion; those that ignore the camera do not. They get new keyframes, and a camera that was there becomes part of them."),
    ...Object.entries(NUMBERS).map(([name, [label]]) => field(label, numbers[name])),
    h("label", { className: "check" }, anchors, "Anchors: small objects of the background"),
    h("p", { className: "hint" }, "With anchors and no motion, the camera is at rest. Models that were not trained with anchors may draw things there."),
    h("details", {}, h("summary", {}, "Depths, for dolly"),
      ...objects.map((object, k) => field(object.name, depths[k][1])), field("anchors", background)),
  ], {
    action: "Apply",
    submit: async () => {
      const camera = parts(numbers, depths, background);
      if (!camera.length && !anchors.checked) throw new Error("The camera is at rest and adds no anchors: enter a motion, or choose anchors.");
      await applyCamera(store, anchors.checked ? [...camera, "anchors"] : camera);
      return true;
    },
  });
}

const number = (id, value) => h("input", { type: "number", id, value, step: "any", required: true });

/** The parts of the motion, as of `flashmotion sample --camera`. */
function parts({ right, down, zoom, roll, dolly }, depths, background) {
  const given = (control, rest) => Number(control.value) !== rest;
  const part = (control) => Number(control.value) / 100;
  const ofObjects = depths.filter(([, depth]) => given(depth, 1)).map(([id, depth]) => `,${id}=${depth.value}`);
  return [
    ...(given(right, 0) || given(down, 0) ? [`pan:${part(right)},${part(down)}`] : []),
    ...(given(zoom, 100) ? [`zoom:${part(zoom)}`] : []),
    ...(given(roll, 0) ? [`roll:${roll.value}`] : []),
    ...(given(dolly, 0) ? [`dolly:${part(dolly)}${ofObjects.join("")},background=${background.value}`] : []),
  ];
}

/** Has the server move the objects, and takes their keyframes and the anchors. */
export async function applyCamera(store, camera) {
  const { project } = store;
  const all = { ...project, objects: project.objects.map((object) => ({ ...object, hidden: false })) };
  const moved = await api.camera({ camera: camera.join(" "), trajectory: jsonFile(toTrajectory(all), "trajectory.json") });
  const moves = camera.some((part) => part !== "anchors");
  store.change("Camera preset", (draft) => {
    for (const { id, name, keyframes } of moved.objects) {
      const there = draft.objects.find((object) => object.id === id);
      if (!there) {
        const anchor = addObject(draft, { box: keyframes[0].box, name });
        Object.assign(anchor, { id, color: null, keyframes, anchored: !moves });
      } else if (moves && !there.pinned) {
        Object.assign(there, { keyframes, path: "straight", anchored: false });
      }
    }
    if (moves) draft.camera = null;
  });
  const added = moved.objects.length - project.objects.length;
  say(`${moves ? "The objects move with the camera" : "The camera is at rest"}${added ? `; ${added} anchors were added` : ""}.`);
}
