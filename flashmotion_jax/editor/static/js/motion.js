// Interpolation of keyframes, identical to trajectory/keyframes.py, and what only the editor has:
// splines and the camera, which are converted to linear keyframes in a trajectory.

import { clamp } from "./numbers.js";

/** Name -> progress in 0..1 at time u in 0..1 between a keyframe and the next. */
export const EASINGS = {
  linear: (u) => u,
  smooth: (u) => u * u * (3 - 2 * u),
  in: (u) => u * u,
  out: (u) => u * (2 - u),
  hold: () => 0,
};
export const UNIT = [0, 0, 1, 1];
/** The range of box edges in the file format. */
export const LIMITS = [-10, 11];
const SAMPLES = 32; // per segment of a spline, for motion at constant speed

/** The segment of a time: indices of its two keyframes, and the eased progress between them. */
function locate(keyframes, time) {
  const last = keyframes.length - 1;
  const t = clamp(time, keyframes[0].frame, keyframes[last].frame);
  let start = last;
  while (keyframes[start].frame > t) start -= 1;
  const end = Math.min(start + 1, last);
  const length = Math.max(keyframes[end].frame - keyframes[start].frame, 1);
  const way = EASINGS[keyframes[start].ease]((t - keyframes[start].frame) / length);
  return { start, end, way };
}

/** The box at a time; before the first and after the last keyframe it is constant. */
export function interpolate(keyframes, time) {
  const { start, end, way } = locate(keyframes, time);
  const from = keyframes[start].box;
  const to = keyframes[end].box;
  return from.map((edge, i) => edge + way * (to[i] - edge));
}

/** The box of a track (an object or the camera) in the scene. */
export function boxAt(track, time) {
  const { keyframes } = track;
  if (track.path !== "spline" || keyframes.length < 3) return interpolate(keyframes, time);
  const { start, end, way } = locate(keyframes, time);
  if (start === end || way === 0) return [...keyframes[start].box];
  const centers = keyframes.map((keyframe) => centerOf(keyframe.box));
  const [x, y] = alongSpline(centers, start, way);
  const [from, to] = [sizeOf(keyframes[start].box), sizeOf(keyframes[end].box)];
  return boxAround(x, y, from[0] + way * (to[0] - from[0]), from[1] + way * (to[1] - from[1]));
}

export const centerOf = (box) => [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
export const sizeOf = (box) => [box[2] - box[0], box[3] - box[1]];
export const boxAround = (x, y, width, height) => [
  x - width / 2, y - height / 2, x + width / 2, y + height / 2,
];
export const shifted = (box, dx, dy) => [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy];

/** A point on a Catmull-Rom spline, at a fraction of the length of segment k. */
function alongSpline(points, k, part) {
  const [before, from, to, after] = [k - 1, k, k + 1, k + 2].map(
    (i) => points[clamp(i, 0, points.length - 1)],
  );
  const at = (u) =>
    [0, 1].map((axis) => {
      const [a, b, c, d] = [before[axis], from[axis], to[axis], after[axis]];
      return b + (u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))) / 2;
    });
  const lengths = [0];
  let previous = from;
  for (let i = 1; i <= SAMPLES; i += 1) {
    const point = at(i / SAMPLES);
    lengths.push(lengths[i - 1] + Math.hypot(point[0] - previous[0], point[1] - previous[1]));
    previous = point;
  }
  const wanted = part * lengths[SAMPLES];
  let i = 1;
  while (i < SAMPLES && lengths[i] < wanted) i += 1;
  const span = lengths[i] - lengths[i - 1];
  return at((i - 1 + (span > 0 ? (wanted - lengths[i - 1]) / span : 0)) / SAMPLES);
}

/** A box of the scene as seen by the camera, which is the box of frame 0 in the current frame. */
export function throughCamera(camera, box) {
  const [x0, y0, x1, y1] = camera;
  const [width, height] = [x1 - x0, y1 - y0];
  return [x0 + box[0] * width, y0 + box[1] * height, x0 + box[2] * width, y0 + box[3] * height];
}

/** The inverse of `throughCamera`. */
export function outOfCamera(camera, box) {
  const [x0, y0, x1, y1] = camera;
  const [width, height] = [x1 - x0, y1 - y0];
  return [
    (box[0] - x0) / width, (box[1] - y0) / height, (box[2] - x0) / width, (box[3] - y0) / height,
  ];
}

export function cameraAt(project, frame) {
  return project.camera ? boxAt(project.camera, frame) : UNIT;
}

/** The box of an object in the video. */
export function shownBox(project, object, frame) {
  const box = boxAt(object, frame);
  return project.camera && !object.pinned ? throughCamera(cameraAt(project, frame), box) : box;
}

/** Fits linear keyframes to boxes within a tolerance, by Douglas-Peucker simplification. */
export function keyframesFromBoxes(frames, boxes, tolerance) {
  const kept = new Set([0, frames.length - 1]);
  const spans = [[0, frames.length - 1]];
  while (spans.length) {
    const [first, last] = spans.pop();
    const length = frames[last] - frames[first] || 1;
    let [worst, largest] = [first, 0];
    for (let k = first; k < last; k += 1) {
      const elapsed = (frames[k] - frames[first]) / length;
      for (let i = 0; i < 4; i += 1) {
        const line = boxes[first][i] + elapsed * (boxes[last][i] - boxes[first][i]);
        const error = Math.abs(boxes[k][i] - line) / tolerance[i];
        if (error > largest) [worst, largest] = [k, error];
      }
    }
    if (largest > 1) {
      kept.add(worst);
      spans.push([first, worst], [worst, last]);
    }
  }
  return [...kept].sort((a, b) => a - b)
    .map((k) => ({ frame: frames[k], box: [...boxes[k]], ease: "linear" }));
}

/** A tolerance in pixels of the canvas, for `keyframesFromBoxes`. */
export function tolerance(canvas, pixels) {
  const [x, y] = [pixels / canvas.width, pixels / canvas.height];
  return [x, y, x, y];
}

/** The keyframes of an object of a file that follows points; null where it is hidden. */
export function pointKeyframes(points) {
  return points.flatMap((point, frame) =>
    point ? [{ frame, box: [...point, ...point], ease: "linear" }] : []);
}

/** Whether a box is a point: it has a place and no extent. */
export function isPoint([x0, y0, x1, y1]) {
  return x1 - x0 < 1e-9 && y1 - y0 < 1e-9;
}

/** Sorts the edges of a box and clamps them to the limits of the file format. */
export function tidied(box) {
  const [a, b, c, d] = box.map((edge) => clamp(edge, ...LIMITS));
  return [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];
}

/** The keyframes of an object in a file: its own, or fitted to its motion with spline and camera. */
function plainKeyframes(project, object) {
  const composed = project.camera && !object.pinned;
  if (!composed && (object.path !== "spline" || object.keyframes.length < 3)) {
    return object.keyframes.map(({ frame, box, ease }) => ({ frame, box: [...box], ease }));
  }
  const frames = Array.from({ length: project.num_frames }, (_, frame) => frame);
  const boxes = frames.map((frame) => tidied(shownBox(project, object, frame)));
  return keyframesFromBoxes(frames, boxes, tolerance(project.canvas, 0.1));
}

/** The trajectory (format v1) of a project, for preview, export and generation. */
export function toTrajectory(project) {
  const shown = project.objects.filter((object) => !object.hidden);
  return {
    version: 1,
    canvas: { ...project.canvas },
    num_frames: project.num_frames,
    fps: project.fps,
    objects: shown.map((object) => ({
      id: object.id,
      name: object.name,
      color: object.color ?? null,
      mask: object.mask ?? null,
      keyframes: plainKeyframes(project, object),
    })),
    sparse_frames: project.sparse_frames ?? null,
  };
}
