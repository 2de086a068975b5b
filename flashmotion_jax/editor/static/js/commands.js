// Commands of buttons and keys. Each is one undo step.

import { say } from "./dom.js";
import { visibleBox } from "./geometry.js";
import { EASINGS, UNIT, boxAt, cameraAt, outOfCamera, shifted, sizeOf } from "./motion.js";
import { boxOf, mirrored, moved } from "./masks.js";
import { addObject, copyTrack, findTrack, keyframeAt, renumber, segmentAt, setBox } from "./project.js";

export const EASE_NAMES = Object.keys(EASINGS);

export function selectedTrack(store) {
  return findTrack(store.project, store.view.selected);
}

export const nameOf = (project, track) => (track === project.camera ? "camera" : track.name);

/** The selected track, or null if none can be changed. */
export function editable(store) {
  const track = selectedTrack(store);
  if (!track) say("Select an object first.");
  else if (track.locked) say(`${track.name} is locked.`);
  else return track;
  return null;
}

/** Changes the selected track in one step. */
export function changeSelected(store, label, edit, merge = null) {
  const track = editable(store);
  if (!track) return;
  const { uid } = track;
  const isCamera = track === store.project.camera;
  store.change(label, (draft) => edit(isCamera ? draft.camera : findTrack(draft, uid), draft), merge);
}

/** Sets the box on the current frame, as seen through the camera. */
export function setVisibleBox(store, box, merge = null) {
  const { frame } = store.view;
  changeSelected(store, "Change the box", (track, draft) => {
    const isCamera = track === draft.camera;
    if (isCamera && frame === 0) return refuseCamera();
    const through = isCamera || track.pinned || !draft.camera;
    setBox(track, frame, through ? box : outOfCamera(cameraAt(draft, frame), box));
    return true;
  }, merge);
}

export function refuseCamera() {
  say("The camera cannot move on frame 0, which shows the image. Go to a later frame.");
  return false;
}

/** Moves the selected object by fractions of the canvas. */
export function nudge(store, dx, dy) {
  const track = editable(store);
  if (!track) return;
  const box = shifted(visibleBox(store.project, track, store.view.frame), dx, dy);
  setVisibleBox(store, box, `nudge ${track.uid ?? "camera"} ${store.view.frame}`);
}

export function toggleKeyframe(store) {
  const { frame } = store.view;
  changeSelected(store, "Keyframe", (track, draft) => {
    if (!keyframeAt(track, frame)) {
      setBox(track, frame, boxAt(track, frame));
      return true;
    }
    return removeKey(track, frame, draft);
  });
}

export function removeKeyframe(store, uid, frame) {
  store.change("Remove a keyframe", (draft) => removeKey(findTrack(draft, uid), frame, draft));
}

function removeKey(track, frame, draft) {
  if (track === draft.camera && frame === 0) return refuseCamera();
  if (track.keyframes.length === 1) {
    say("An object needs at least one keyframe. Delete the object instead.");
    return false;
  }
  track.keyframes = track.keyframes.filter((key) => key.frame !== frame);
  return true;
}

/** Moves a keyframe in time, at most to its neighbors; returns its new frame. */
export function moveKeyframe(track, from, to, last) {
  const k = track.keyframes.findIndex((key) => key.frame === from);
  const low = k > 0 ? track.keyframes[k - 1].frame + 1 : 0;
  const high = k < track.keyframes.length - 1 ? track.keyframes[k + 1].frame - 1 : last;
  track.keyframes[k].frame = Math.min(Math.max(to, low), high);
  return track.keyframes[k].frame;
}

export function setEase(store, ease) {
  const { frame } = store.view;
  changeSelected(store, `Motion: ${ease}`, (track) => { segmentAt(track, frame).ease = ease; });
}

/** Holds the current box for a while before the motion continues to the next keyframe. */
export function waitHere(store) {
  const { frame } = store.view;
  const last = store.project.num_frames - 1;
  changeSelected(store, "Wait", (track, draft) => {
    const next = track.keyframes.find((key) => key.frame > frame);
    const limit = next ? next.frame - 1 : last;
    const end = Math.min(limit, frame + Math.max(1, Math.round(draft.num_frames / 6)));
    if (end <= frame) {
      say("There is no free frame before the next keyframe.");
      return false;
    }
    const box = boxAt(track, frame);
    setBox(track, frame, box);
    setBox(track, end, box);
    say(`Held until frame ${end}. Move that keyframe to change the duration.`);
    return true;
  });
}

export function removeSelected(store) {
  const track = editable(store);
  if (!track) return;
  store.change(`Delete ${nameOf(store.project, track)}`, (draft) => {
    if (track === store.project.camera) draft.camera = null;
    else draft.objects = draft.objects.filter((object) => object.uid !== track.uid);
  });
}

export function duplicate(store) {
  const track = selectedTrack(store);
  if (!track || track === store.project.camera) return;
  let uid;
  store.change(`Duplicate ${track.name}`, (draft) => {
    const copy = addObject(draft, { box: UNIT, name: `${track.name} copy` });
    const { path, anchored, pinned, keyframes, mask } = copyTrack(track);
    const offset = 0.04;
    Object.assign(copy, { path, anchored, pinned, mask: mask && moved(mask, offset, offset) });
    copy.mask = copy.mask && boxOf(copy.mask) ? copy.mask : null;
    copy.keyframes = keyframes.map((key) => ({ ...key, box: shifted(key.box, offset, offset) }));
    ({ uid } = copy);
  });
  store.show({ selected: uid });
}

/** Mirrors the motion and the mask of the selected object. */
export function mirror(store, axis) {
  changeSelected(store, "Mirror", (track, draft) => {
    if (track === draft.camera) {
      say("The camera cannot be mirrored.");
      return false;
    }
    for (const key of track.keyframes) {
      const [x0, y0, x1, y1] = key.box;
      key.box = axis === "x" ? [1 - x1, y0, 1 - x0, y1] : [x0, 1 - y1, x1, 1 - y0];
    }
    track.mask = track.mask && mirrored(track.mask, axis);
    return true;
  });
}

/** Reverses the motion of the selected object. */
export function reverse(store) {
  changeSelected(store, "Reverse", (track, draft) => {
    if (track === draft.camera) return refuseCamera();
    const last = draft.num_frames - 1;
    const backwards = { in: "out", out: "in" };
    const eases = track.keyframes.map((key) => backwards[key.ease] ?? key.ease);
    const keys = track.keyframes.map((key) => ({ ...key, frame: last - key.frame })).reverse();
    // Easing is stored at the start of a segment, which is now its other end.
    keys.forEach((key, k) => { key.ease = eases[keys.length - 2 - k] ?? "linear"; });
    track.keyframes = keys;
    return true;
  });
}

/** Moves the selected object one step to the front (1) or to the back (-1). */
export function restack(store, by) {
  const track = editable(store);
  if (!track || track === store.project.camera) return;
  store.change("Order", (draft) => {
    const at = draft.objects.findIndex((object) => object.uid === track.uid);
    const to = at + by;
    if (to < 0 || to >= draft.objects.length) return false;
    draft.objects.splice(to, 0, ...draft.objects.splice(at, 1));
    renumber(draft);
    return true;
  });
}

export function toggleFlag(store, uid, flag) {
  store.change(flag, (draft) => {
    const object = findTrack(draft, uid);
    object[flag] = !object[flag];
  });
}

/** Makes the selected object an anchor, which keeps its current box on all frames. */
export function setAnchored(store, anchored) {
  const { frame } = store.view;
  changeSelected(store, "Anchor", (track) => {
    track.anchored = anchored;
    if (anchored) track.keyframes = [{ frame: 0, box: boxAt(track, frame), ease: "linear" }];
  });
}

export function addAnchor(store) {
  let uid;
  store.change("Add an anchor", (draft) => {
    const number = draft.objects.filter((object) => object.anchored).length + 1;
    const object = addObject(draft, { box: [0.4, 0.4, 0.6, 0.6], name: `anchor ${number}` });
    object.anchored = true;
    ({ uid } = object);
  });
  store.show({ selected: uid, tool: "select" });
  say("Move the box to something that should stay in place.");
}

export function addCamera(store) {
  if (!store.project.camera) {
    store.change("Add a camera", (draft) => {
      draft.camera = {
        path: "straight", locked: false,
        keyframes: [{ frame: 0, box: [...UNIT], ease: "smooth" }],
      };
    });
    say("Go to a later frame, then drag or resize the yellow frame: it shows where frame 0 will be.");
  }
  store.show({ selected: "camera", tool: "select" });
}

/** Pans or zooms the camera over the whole video. */
export function moveCamera(store, { dx = 0, dy = 0, factor = 1 }) {
  const last = store.project.num_frames - 1;
  store.change("Camera", (draft) => {
    draft.camera ??= { path: "straight", locked: false, keyframes: [{ frame: 0, box: [...UNIT], ease: "smooth" }] };
    const [x0, y0, x1, y1] = boxAt(draft.camera, last);
    const [cx, cy] = [0.5, 0.5];
    const box = [cx + (x0 - cx) * factor, cy + (y0 - cy) * factor, cx + (x1 - cx) * factor, cy + (y1 - cy) * factor];
    setBox(draft.camera, last, shifted(box, -dx, -dy), "smooth");
  });
  store.show({ selected: "camera" });
}

/** Makes the object enter from a side at the start, or leave to it at the end. */
export function crossEdge(store, side, enters) {
  const last = store.project.num_frames - 1;
  const frame = enters ? 0 : last;
  changeSelected(store, enters ? "Enter" : "Leave", (track, draft) => {
    if (track === draft.camera || track.anchored) {
      say("Anchors and the camera cannot enter or leave.");
      return false;
    }
    if (enters && keyframeAt(track, 0)) {
      const target = Math.max(1, Math.round(last / 2));
      if (track.keyframes.length === 1) track.keyframes[0].frame = target;
    }
    const reference = enters ? track.keyframes.find((key) => key.frame > 0) ?? track.keyframes[0] : track.keyframes.at(-1);
    setBox(track, frame, beyond(reference.box, side));
    return true;
  });
}

/** A box moved outside the canvas at a side. */
function beyond(box, side) {
  const [width, height] = sizeOf(box);
  const gap = 0.01;
  if (side === "left") return [-width - gap, box[1], -gap, box[3]];
  if (side === "right") return [1 + gap, box[1], 1 + gap + width, box[3]];
  if (side === "top") return [box[0], -height - gap, box[2], -gap];
  return [box[0], 1 + gap, box[2], 1 + gap + height];
}

/** Goes to the previous (-1) or next (1) keyframe. */
export function goToKeyframe(store, direction) {
  const { project, view } = store;
  const track = selectedTrack(store);
  const tracks = track ? [track] : [...project.objects, project.camera].filter(Boolean);
  const frames = tracks.flatMap((one) => one.keyframes.map((key) => key.frame));
  const candidates = frames.filter((frame) => (frame - view.frame) * direction > 0);
  if (candidates.length) store.show({ frame: direction > 0 ? Math.min(...candidates) : Math.max(...candidates) });
}

/** Selects the next (1) or previous (-1) object. */
export function selectNext(store, direction) {
  const uids = [...store.project.objects.map((object) => object.uid), ...(store.project.camera ? ["camera"] : [])];
  if (!uids.length) return;
  const at = uids.indexOf(store.view.selected);
  const next = at < 0 ? (direction > 0 ? 0 : uids.length - 1) : (at + direction + uids.length) % uids.length;
  store.show({ selected: uids[next] });
  say(`${nameOf(store.project, findTrack(store.project, uids[next]))} selected`);
}
