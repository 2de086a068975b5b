// The project: everything that is saved and undone. Masks and the image are shared between versions
// and must never be changed in place.

import { EASINGS, UNIT, boxAt, pointKeyframes, tidied } from "./motion.js";
import { paletteColor, rgbOf, toHex } from "./palette.js";

export const FORMAT = "flashmotion-project";
const VERSION = 1;
export const MAX_OBJECTS = 200;

export function newProject(model) {
  return {
    name: "Untitled",
    image: null,
    canvas: { width: model.width, height: model.height },
    num_frames: model.num_frames,
    fps: model.fps,
    sparse_frames: null,
    objects: [],
    camera: null,
    settings: {
      prompt: "", seed: 0, adapter: model.adapters[0] ?? "none", num_inference_steps: null, size: null,
      num_frames: null, guidance_scale: null, adapter_scale: 1, map_kind: null,
    },
  };
}

/** Settings by the names they had until December 2026. */
const OLD_SETTINGS = { steps: "num_inference_steps", frames: "num_frames", guidance: "guidance_scale", kind: "map_kind" };

/** A stored project, completed with the defaults of a new one; `image` is its decoded image. */
export function restored(model, stored, image) {
  const empty = newProject(model);
  // The name of `color` until December 2026.
  const objects = (stored.objects ?? []).map(({ colour, ...object }) => ({ color: colour ?? null, ...object }));
  const named = Object.entries(stored.settings ?? {}).map(([name, value]) => [OLD_SETTINGS[name] ?? name, value]);
  return { ...empty, ...stored, settings: { ...empty.settings, ...Object.fromEntries(named) }, objects, image };
}

/** A copy that can be changed. */
export function draftOf(project) {
  return {
    ...project,
    canvas: { ...project.canvas },
    settings: { ...project.settings },
    objects: project.objects.map(copyTrack),
    camera: project.camera && copyTrack(project.camera),
  };
}

export function copyTrack(track) {
  return { ...track, keyframes: track.keyframes.map((key) => ({ ...key, box: [...key.box] })) };
}

/** Adds an object in front of the others, with one keyframe on frame 0. */
export function addObject(project, { box, mask = null, name }) {
  if (project.objects.length >= MAX_OBJECTS) {
    throw new Error(`There are already ${MAX_OBJECTS} objects, the maximum.`);
  }
  const id = Math.max(0, ...project.objects.map((object) => object.id)) + 1;
  const object = {
    uid: crypto.getRandomValues(new Uint32Array(2)).join("-"),
    id,
    name: name ?? `object ${id}`,
    color: freeColor(project, id),
    mask,
    path: "straight",
    hidden: false,
    locked: false,
    anchored: false,
    pinned: false,
    keyframes: [{ frame: 0, box: tidied(box), ease: "linear" }],
  };
  project.objects.push(object);
  return object;
}

/** An unused color for an id; null for the color of the id in the palette. */
function freeColor(project, id) {
  const taken = new Set(project.objects.map((object) => toHex(rgbOf(object))));
  if (!taken.has(toHex(paletteColor(id)))) return null;
  let other = 0;
  while (taken.has(toHex(paletteColor(other)))) other += 1;
  return toHex(paletteColor(other));
}

/** Renumbers objects in their order; they keep their colors. */
export function renumber(project) {
  const ids = project.objects.map((object) => object.id).sort((a, b) => a - b);
  project.objects.forEach((object, k) => {
    const hex = toHex(rgbOf(object));
    object.id = ids[k];
    object.color = hex === toHex(paletteColor(ids[k])) ? null : hex;
  });
}

export function findTrack(project, uid) {
  if (uid === "camera") return project.camera;
  return project.objects.find((object) => object.uid === uid) ?? null;
}

export function keyframeAt(track, frame) {
  return track.keyframes.find((key) => key.frame === frame) ?? null;
}

/** Sets the box on a frame, which adds a keyframe if there is none. */
export function setBox(track, frame, box, ease) {
  const there = keyframeAt(track, frame);
  if (track.anchored) {
    track.keyframes = [{ frame: 0, box: tidied(box), ease: "linear" }];
  } else if (there) {
    there.box = tidied(box);
  } else {
    const before = track.keyframes.filter((key) => key.frame < frame).at(-1);
    track.keyframes.push({ frame, box: tidied(box), ease: ease ?? before?.ease ?? "linear" });
    track.keyframes.sort((a, b) => a.frame - b.frame);
  }
}

/** The keyframe that starts the segment of a frame. */
export function segmentAt(track, frame) {
  return track.keyframes.filter((key) => key.frame <= frame).at(-1) ?? track.keyframes[0];
}

/** Changes the length; keyframes are rescaled, or kept and cut off at the end. */
export function setFrames(project, count, stretch) {
  const [last, before] = [count - 1, Math.max(project.num_frames - 1, 1)];
  for (const track of [...project.objects, project.camera].filter(Boolean)) {
    const kept = new Map();
    if (!stretch && track.keyframes.at(-1).frame > last) {
      kept.set(last, { frame: last, box: boxAt(track, last), ease: "linear" });
    }
    for (const key of track.keyframes) {
      const frame = stretch ? Math.round((key.frame * last) / before) : key.frame;
      if (frame <= last) kept.set(frame, { ...key, frame });
    }
    track.keyframes = [...kept.values()].sort((a, b) => a.frame - b.frame);
  }
  project.num_frames = count;
  project.sparse_frames = null;
}

/** Adds the objects of a trajectory (format v1), or replaces all objects by them. */
export function takeTrajectory(project, trajectory, replace) {
  if (replace) {
    project.objects = [];
    project.camera = null;
    project.num_frames = trajectory.num_frames;
    project.fps = trajectory.fps;
    project.sparse_frames = trajectory.sparse_frames ?? null;
  }
  const scale = (project.num_frames - 1) / Math.max(trajectory.num_frames - 1, 1);
  for (const item of [...trajectory.objects].sort((a, b) => a.id - b.id)) {
    const object = addObject(project, { box: UNIT, mask: item.mask ?? null, name: item.name });
    if (replace) Object.assign(object, { id: item.id, color: item.color ?? null });
    const keys = new Map();
    for (const { frame, box, ease } of item.keyframes ?? pointKeyframes(item.points)) {
      const at = Math.round(frame * scale);
      keys.set(at, { frame: at, box: [...box], ease: ease ?? "linear" });
    }
    object.keyframes = [...keys.values()];
    object.name ||= `object ${object.id}`;
  }
}

/** The project as JSON for a file, with the image in base64. */
export async function toFile(project) {
  const { image, ...rest } = project;
  const packed = image && { name: image.name, type: image.blob.type, data: await base64(image.blob) };
  return { format: FORMAT, version: VERSION, ...rest, image: packed };
}

/** The project of a file; `decode` makes an image from a Blob and a name. */
export async function fromFile(data, model, decode) {
  if (data?.format !== FORMAT) throw new Error("This is not a project of the editor. Use Import instead.");
  if (data.version !== VERSION) throw new Error(`The project has version ${data.version}; expected ${VERSION}.`);
  const project = restored(model, data, null);
  delete project.format;
  delete project.version;
  for (const track of [...project.objects, project.camera].filter(Boolean)) checkTrack(track);
  if (data.image) {
    const bytes = Uint8Array.from(atob(data.image.data), (letter) => letter.charCodeAt(0));
    project.image = await decode(new Blob([bytes], { type: data.image.type }), data.image.name);
  }
  return project;
}

function checkTrack(track) {
  const isValid = track.keyframes?.length > 0 && track.keyframes.every(
    (key) => Number.isInteger(key.frame) && key.ease in EASINGS
      && key.box?.length === 4 && key.box.every(Number.isFinite),
  );
  if (!isValid) throw new Error("The project is damaged: an object has invalid keyframes.");
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
