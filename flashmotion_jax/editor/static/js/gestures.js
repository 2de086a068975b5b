// Pointer gestures on the stage. Each tool returns a drag with move(), end() and cancel().

import { api } from "./api.js";
import { refuseCamera } from "./commands.js";
import { attempt, say } from "./dom.js";
import { POINT_RADIUS, handleAt, isInside, markAt, objectsAt, resizedBox, visibleBox } from "./geometry.js";
import { smallPng } from "./images.js";
import { boxOf, resized } from "./masks.js";
import { cameraAt, isPoint, outOfCamera, shifted } from "./motion.js";
import { addObject, findTrack, setBox } from "./project.js";
import { recordDrag } from "./recording.js";
import { strokeDrag } from "./brush.js";

const SMALLEST = 5; // pixels; smaller drags draw no box
const SENT_SIDE = 1024; // pixels of the image that is sent to the server for a selection

/** The drag that starts at a point, or null. */
export function beginDrag(stage, point, event) {
  const { tool } = stage.store.view;
  if (tool === "point") return pointDrag(stage, point);
  if (tool === "box") return bandDrag(stage, point, (box) => drawBox(stage, box));
  if (tool === "paint" || tool === "erase") return strokeDrag(stage, point);
  if (tool === "wand") {
    return bandDrag(stage, point, (box) => selectPart(stage, { box }), () => selectPart(stage, { point }));
  }
  return selectDrag(stage, point, event);
}

function selectDrag(stage, point, event) {
  const { store } = stage;
  const { project, view } = store;
  const place = stage.place();
  const reach = event.pointerType === "touch" ? 18 : 9;
  const selected = findTrack(project, view.selected);
  const free = selected && !selected.locked && !selected.hidden;
  if (view.recording) {
    if (free) return recordDrag(stage, selected, point);
    say("Select an object to record, one that is not locked.", true);
    return null;
  }
  if (free) {
    const handle = handleAt(place, visibleBox(project, selected, view.frame), point, reach);
    const isSide = handle && (handle[0] === 0.5 || handle[1] === 0.5);
    if (handle && !(isSide && selected === project.camera)) return boxDrag(stage, selected, point, handle);
    // Inside the box, marks are ignored: those of an object at rest lie in the center of its box.
    const mark = isInside(place, visibleBox(project, selected, view.frame), point)
      ? null : markAt(project, place, selected, point, reach);
    if (mark) {
      store.show({ frame: mark.frame });
      return boxDrag(stage, selected, point, null);
    }
  }
  if (selected && selected === project.camera) return free ? boxDrag(stage, selected, point, null) : null;
  const hits = objectsAt(project, view.frame, place, point, reach / 3);
  // The selected object takes precedence, even behind others; Alt selects the next one behind.
  const at = hits.indexOf(selected);
  const hit = event.altKey ? hits[(at + 1) % hits.length] : at >= 0 ? selected : hits[0];
  store.show({ selected: hit?.uid ?? null });
  if (!hit) return event.pointerType === "touch" ? null : panDrag(stage, point);
  if (hit.locked) {
    say(`${hit.name} is locked.`);
    return null;
  }
  return boxDrag(stage, hit, point, null);
}

/** Moves or resizes the box of a track on the current frame. */
function boxDrag(stage, track, start, handle) {
  const { store } = stage;
  const { frame } = store.view;
  const { uid } = track;
  const isCamera = track === store.project.camera;
  const before = visibleBox(store.project, track, frame);
  const camera = isCamera || track.pinned ? null : cameraAt(store.project, frame);
  const name = isCamera ? "the camera" : track.name;
  if (isCamera && frame === 0) {
    refuseCamera();
    return null;
  }
  let moved = false;
  return {
    move(point, event) {
      const place = stage.place();
      let [dx, dy] = [(point[0] - start[0]) / place.width, (point[1] - start[1]) / place.height];
      if (!moved) {
        if (Math.hypot(point[0] - start[0], point[1] - start[1]) < 3) return;
        moved = true;
        store.begin(`${handle ? "Resize" : "Move"} ${name}`);
      }
      if (event.shiftKey && !handle) Math.abs(dx) > Math.abs(dy) ? (dy = 0) : (dx = 0);
      const box = handle
        ? resizedBox(before, handle, dx, dy, isCamera || event.shiftKey) : shifted(before, dx, dy);
      store.update((draft) => setBox(isCamera ? draft.camera : findTrack(draft, uid), frame, camera ? outOfCamera(camera, box) : box));
    },
    end: () => moved && store.end(),
    cancel: () => moved && store.cancel(),
  };
}

export function panDrag(stage, start) {
  const { pan } = stage.store.view;
  return {
    move: (point) => stage.store.show({ pan: [pan[0] + point[0] - start[0], pan[1] + point[1] - start[1]] }),
    end() {},
    cancel() {},
  };
}

/** Draws a rubber band; a small one is a click. */
function bandDrag(stage, start, onBox, onClick = () => say("Drag to draw a box.")) {
  let band = null;
  let last = start;
  return {
    move(point) {
      last = point;
      const place = stage.place();
      const [a, b] = [place.toCanvas(start), place.toCanvas(point)];
      band = [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
      stage.setExtra({ band });
    },
    end() {
      stage.setExtra({ band: null });
      const size = Math.min(Math.abs(last[0] - start[0]), Math.abs(last[1] - start[1]));
      if (band && size >= SMALLEST) onBox(band);
      else onClick();
    },
    cancel: () => stage.setExtra({ band: null }),
  };
}

/** Adds a point where the pointer is released; until then, a ring follows it. */
function pointDrag(stage, start) {
  let last = start;
  const ring = (point) => stage.setExtra({ brush: point && { point, radius: POINT_RADIUS } });
  ring(start);
  return {
    move(point) {
      last = point;
      ring(point);
    },
    end() {
      ring(null);
      const [x, y] = stage.place().toCanvas(last);
      drawBox(stage, [x, y, x, y]);
    },
    cancel: () => ring(null),
  };
}

/** Adds an object with a box, or a point, on the current frame. */
export function drawBox(stage, box) {
  const { store } = stage;
  const name = isPoint(box) ? "point" : "box";
  attempt(() => {
    let uid;
    store.change(`Draw a ${name}`, (draft) => {
      const scene = draft.camera ? outOfCamera(cameraAt(draft, store.view.frame), box) : box;
      const object = addObject(draft, { box: scene });
      object.keyframes[0].frame = store.view.frame;
      uid = object.uid;
    });
    store.show({ selected: uid, tool: "select" });
    say(`Go to another frame and drag the ${name} to its new position, or record its path (R).`);
  });
}

/** Adds the object that the server finds at a point or in a box. */
function selectPart(stage, { point, box }) {
  const { store } = stage;
  return attempt(async () => {
    const { image, canvas } = store.project;
    if (!image) throw new Error("Load an image first.");
    say("Selecting …");
    const fields = { image: await smallPng(image, SENT_SIDE) };
    if (box) [fields.x0, fields.y0, fields.x1, fields.y1] = box;
    else {
      [fields.x, fields.y] = stage.place().toCanvas(point);
      fields.tolerance = store.view.tolerance;
    }
    const found = await api.select(fields);
    const mask = resized(found, canvas.height, canvas.width);
    addMasked(store, mask, "Select an object");
  });
}

/** Adds an object with a mask and its bounding box. */
export function addMasked(store, mask, label, name) {
  const box = boxOf(mask);
  if (!box) throw new Error("The mask is empty.");
  let object;
  store.change(label, (draft) => {
    object = addObject(draft, { box, mask, name });
  });
  store.show({ selected: object.uid, frame: 0 });
  return object;
}

/** The CSS cursor at a point. */
export function cursorAt(stage, point) {
  const { project, view } = stage.store;
  if (view.tool === "paint" || view.tool === "erase") return "none";
  if (view.tool !== "select" || view.recording) return "crosshair";
  const place = stage.place();
  const selected = findTrack(project, view.selected);
  if (selected && !selected.locked && !selected.hidden) {
    const handle = handleAt(place, visibleBox(project, selected, view.frame), point, 9);
    if (handle) {
      if (handle[0] === 0.5) return "ns-resize";
      if (handle[1] === 0.5) return "ew-resize";
      return handle[0] === handle[1] ? "nwse-resize" : "nesw-resize";
    }
    if (isInside(place, visibleBox(project, selected, view.frame), point)) return "move";
    if (markAt(project, place, selected, point, 9)) return "pointer";
  }
  if (selected && selected === project.camera) return "move";
  return objectsAt(project, view.frame, place, point, 3).length ? "move" : "default";
}
