// Warnings about motion that the model cannot follow, or that may be a mistake.

import { cropOf } from "./geometry.js";
import { boxOf } from "./masks.js";
import { interpolate, isPoint, toTrajectory } from "./motion.js";
import { linspace } from "./numbers.js";

export const NO_IMAGE = "The model continues an image and cannot make a video from text alone";
const SMALL = 0.01; // share of the image area
const STRETCH = 1.35; // largest change of aspect ratio between latent frames

/** The warnings of a project, [{text, uid, frame, note}]; a `note` may be intended. */
export function findWarnings(project, model, video) {
  const found = [];
  const { frames: step } = model.grid;
  if ((video.frames - 1) % step) {
    const nearest = Math.max(0, Math.round((video.frames - 1) / step)) * step + 1;
    found.push({ text: `The model needs ${step}n + 1 frames, not ${video.frames}: try ${nearest}.` });
  }
  const trajectory = toTrajectory(project);
  const crop = cropOf(project.canvas, video);
  const times = linspace(project.num_frames - 1, video.frames);
  for (const object of trajectory.objects) {
    const source = project.objects.find((one) => one.id === object.id);
    const boxes = times.map((time) => inCrop(interpolate(object.keyframes, time), crop));
    const say = (text, frame = 0, note = false) =>
      found.push({ text: `${object.name} ${text}`, uid: source.uid, frame: Math.round(times[frame]), note });
    checkOutside(boxes, say);
    if (boxes.some(isPoint)) {
      if (video.mapKind !== "points") say("is a point, which maps of boxes hardly show: give it a size, or use a model of points.");
    } else {
      checkSize(boxes, video, say);
      checkSpeed(boxes, step, say);
    }
    checkMask(object, project.canvas, say);
  }
  return found.concat(checkMissing(project, model), checkPrompt(project, model));
}

/** A box as fractions of the crop that the model sees. */
function inCrop([x0, y0, x1, y1], [left, top, right, bottom]) {
  const [width, height] = [right - left, bottom - top];
  return [(x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height];
}

const isOutside = ([x0, y0, x1, y1]) => x1 <= 0 || y1 <= 0 || x0 >= 1 || y0 >= 1;

function checkSize(boxes, video, say) {
  const areas = boxes.map(([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0));
  const frame = areas.indexOf(Math.min(...areas));
  if (areas[frame] >= SMALL) return;
  const [x0, y0, x1, y1] = boxes[frame];
  const pixels = `${Math.round((x1 - x0) * video.width)} × ${Math.round((y1 - y0) * video.height)} pixels`;
  say(`covers less than 1% of the image (${pixels}) and may be too small for the model.`, frame);
}

function checkOutside(boxes, say) {
  const outside = boxes.map(isOutside);
  if (outside.every(Boolean)) {
    say("is outside the image on all frames.", 0);
    return;
  }
  const first = outside.indexOf(true);
  if (first >= 0) say(`is outside the image on ${outside.filter(Boolean).length} frames.`, first, true);
}

/** The model sees one box per latent frame, so it cannot follow jumps between latent frames. */
function checkSpeed(boxes, step, say) {
  let [fastest, speed, sharpest, change] = [0, 0, 0, 1];
  for (let frame = 0; frame + 1 < boxes.length; frame = next(frame, step)) {
    const to = Math.min(next(frame, step), boxes.length - 1);
    const [a, b] = [boxes[frame], boxes[to]];
    if (isOutside(a) && isOutside(b)) continue;
    const jumps = [0, 1].map((axis) => {
      const size = Math.max(1e-6, (a[axis + 2] - a[axis] + b[axis + 2] - b[axis]) / 2);
      return Math.abs(a[axis] + a[axis + 2] - b[axis] - b[axis + 2]) / 2 / size;
    });
    if (Math.max(...jumps) > speed) [fastest, speed] = [frame, Math.max(...jumps)];
    const ratio = aspect(a) / aspect(b);
    if (Math.max(ratio, 1 / ratio) > change) [sharpest, change] = [frame, Math.max(ratio, 1 / ratio)];
  }
  if (speed > 1) say(`moves too fast, ${speed.toFixed(1)} times its size within a latent frame (${step} frames).`, fastest);
  if (change > STRETCH) say(`changes its aspect ratio by ${Math.round((change - 1) * 100)}% within a latent frame.`, sharpest);
}

/** The frame that starts the next latent frame: the first one is frame 0 alone. */
const next = (frame, step) => (frame === 0 ? 1 : frame + step);
const aspect = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 1e-6) / Math.max(y1 - y0, 1e-6);

const boxes = new WeakMap();

function checkMask(object, canvas, say) {
  if (!object.mask) return;
  if (!boxes.has(object.mask)) boxes.set(object.mask, boxOf(object.mask));
  const around = boxes.get(object.mask);
  const first = interpolate(object.keyframes, 0);
  const reach = [canvas.width, canvas.height, canvas.width, canvas.height];
  const apart = Math.max(...first.map((edge, i) => Math.abs(edge - around[i]) * reach[i])) / Math.max(canvas.width, canvas.height);
  if (apart > 0.02) say("has a box on frame 0 that does not fit its mask (use Box to mask).", 0);
}

/** Without an image or an object there may be nothing to generate, or to follow. */
function checkMissing(project, model) {
  const found = [];
  if (model.needs_image && !project.image && project.objects.length) found.push({ text: `${NO_IMAGE}: load one.` });
  const guided = model.adapters.length && project.settings.adapter !== "none";
  if (guided && project.image && !project.objects.length) found.push({ text: "There is no object, so nothing moves along a path: draw a box.", note: true });
  return found;
}

function checkPrompt(project, model) {
  const found = [];
  if (model.words) {
    const words = project.settings.prompt.toLowerCase().match(/\p{L}+/gu) ?? [];
    const unknown = [...new Set(words.filter((word) => !model.words.includes(word)))];
    if (unknown.length) found.push({ text: `The model does not know ${unknown.map((word) => `“${word}”`).join(", ")} in the prompt.`, note: true });
  }
  return found;
}
