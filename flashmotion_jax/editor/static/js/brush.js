// Painting of masks: a stroke is drawn on a layer and becomes run lengths when it ends.

import { attempt } from "./dom.js";
import { boxOf, maskOf, pixelsOf } from "./masks.js";
import { displayColor } from "./palette.js";
import { addObject, findTrack, setBox } from "./project.js";

/** A stroke that paints or erases the mask of the selected object, or creates an object. */
export function strokeDrag(stage, start) {
  const { store } = stage;
  const { project, view } = store;
  const selected = findTrack(project, view.selected);
  const target = selected && selected !== project.camera && !selected.locked ? selected : null;
  const erases = view.tool === "erase";
  if (erases && !target?.mask) {
    return attempt(() => { throw new Error("Select an object with a mask first."); }), null;
  }
  const { width, height } = project.canvas;
  const layer = new OffscreenCanvas(width, height);
  const context = layer.getContext("2d", { willReadFrequently: true });
  const color = erases ? "#ffffff" : target ? displayColor(target) : "#7cc4ff";
  context.fillStyle = context.strokeStyle = color;
  context.lineCap = context.lineJoin = "round";
  const place = stage.place();
  const scale = width / place.width;
  context.lineWidth = view.brush * scale;
  const toPixels = (point) => {
    const [x, y] = place.toCanvas(point);
    return [x * width, y * height];
  };
  let last = toPixels(start);
  const draw = (point) => {
    const next = toPixels(point);
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(next[0] + 0.01, next[1]);
    context.stroke();
    last = next;
    stage.setExtra({ stroke: layer });
  };
  draw(start);
  return {
    move: draw,
    end() {
      stage.setExtra({ stroke: null });
      const painted = context.getImageData(0, 0, width, height).data;
      attempt(() => apply(store, target, erases, painted));
    },
    cancel: () => stage.setExtra({ stroke: null }),
  };
}

function apply(store, target, erases, painted) {
  const { width, height } = store.project.canvas;
  const pixels = target?.mask ? Uint8Array.from(pixelsOf(target.mask)) : new Uint8Array(width * height);
  for (let i = 0; i < pixels.length; i += 1) if (painted[4 * i + 3] > 127) pixels[i] = erases ? 0 : 1;
  const mask = maskOf(pixels, height, width);
  const box = boxOf(mask);
  let uid = target?.uid;
  store.change(erases ? "Erase" : "Paint a mask", (draft) => {
    if (!target) {
      if (!box) return false;
      uid = addObject(draft, { box, mask }).uid;
      return true;
    }
    const object = findTrack(draft, uid);
    object.mask = box && mask;
    // The mask belongs to frame 0, so the box of frame 0 follows it.
    if (box) setBox(object, 0, box);
    return true;
  });
  store.show({ selected: uid, frame: 0 });
}
