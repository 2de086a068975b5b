// The position of the canvas on the stage, and hit tests.

import { boxAt, cameraAt, centerOf, isPoint, shownBox, throughCamera } from "./motion.js";
import { fitGeometry } from "./numbers.js";
import { keyframeAt } from "./project.js";

/** Margin around the image for boxes that leave it, as a fraction of its size. */
const MARGIN = 0.2;
/** Radius of a point on the stage, in pixels. */
export const POINT_RADIUS = 9;
export const HANDLES = [
  [0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1], [0.5, 1], [0, 1], [0, 0.5],
];

/** The placement of a canvas on a stage, with the zoom and pan of the view. */
export function placement(stage, canvas, { zoom, pan }) {
  const room = 1 + 2 * MARGIN;
  const scale = zoom * Math.min(stage.width / (canvas.width * room), stage.height / (canvas.height * room));
  const [width, height] = [canvas.width * scale, canvas.height * scale];
  const left = (stage.width - width) / 2 + pan[0];
  const top = (stage.height - height) / 2 + pan[1];
  return {
    left, top, width, height,
    toStage: ([x, y]) => [left + x * width, top + y * height],
    toCanvas: ([x, y]) => [(x - left) / width, (y - top) / height],
    box: ([x0, y0, x1, y1]) => [left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height],
  };
}

/** The part of the canvas that the model sees, as fractions. */
export function cropOf(canvas, size) {
  const { height, width, top, left } = fitGeometry(canvas, size);
  return [left / width, top / height, (left + size.width) / width, (top + size.height) / height];
}

/** The box of a track on the canvas: of an object through the camera, or of the camera itself. */
export function visibleBox(project, track, frame) {
  return track === project.camera ? cameraAt(project, frame) : shownBox(project, track, frame);
}

/** The box of a keyframe through the camera. */
export function seenKeyframe(project, track, keyframe) {
  if (track === project.camera || track.pinned || !project.camera) return keyframe.box;
  return throughCamera(cameraAt(project, keyframe.frame), keyframe.box);
}

const near = (a, b, reach) => Math.hypot(a[0] - b[0], a[1] - b[1]) <= reach;

/** The handle of a track under a point of the stage: [0..1, 0..1] of its box, or null. */
export function handleAt(place, box, point, reach) {
  if (isPoint(box)) return null;
  const [x0, y0, x1, y1] = place.box(box);
  const hits = HANDLES.filter(([u, v]) => near([x0 + u * (x1 - x0), y0 + v * (y1 - y0)], point, reach));
  // Corners take precedence over sides, which are close in small boxes.
  return hits.find(([u, v]) => u !== 0.5 && v !== 0.5) ?? hits[0] ?? null;
}

/** The keyframe whose mark on the path is at a point, or null. */
export function markAt(project, place, track, point, reach) {
  return track.keyframes.find((keyframe) => {
    const center = centerOf(seenKeyframe(project, track, keyframe));
    return near(place.toStage(center), point, reach);
  }) ?? null;
}

/** The objects at a point, front to back. */
export function objectsAt(project, frame, place, point, slack) {
  return [...project.objects].sort((a, b) => b.id - a.id).filter((object) => {
    if (object.hidden) return false;
    return isInside(place, shownBox(project, object, frame), point, slack);
  });
}

/** Whether a point of the stage is in a box of the canvas, or within `slack` pixels. */
export function isInside(place, box, [x, y], slack = 0) {
  const [x0, y0, x1, y1] = place.box(box);
  if (isPoint(box)) slack += POINT_RADIUS;
  return x >= x0 - slack && x <= x1 + slack && y >= y0 - slack && y <= y1 + slack;
}

/** A box with one handle dragged; `keep` keeps its proportions. */
export function resizedBox(box, [u, v], dx, dy, keep) {
  const result = [...box];
  if (u === 0) result[0] += dx;
  if (u === 1) result[2] += dx;
  if (v === 0) result[1] += dy;
  if (v === 1) result[3] += dy;
  if (keep) {
    const [width, height] = [box[2] - box[0], box[3] - box[1]];
    const changes = [
      u === 0.5 ? 0 : (result[2] - result[0]) / width, v === 0.5 ? 0 : (result[3] - result[1]) / height,
    ];
    const factor = Math.max(...changes, 0.02);
    const [fixedX, fixedY] = [1 - u, 1 - v];
    const [x, y] = [box[0] + fixedX * width, box[1] + fixedY * height];
    return [
      x - fixedX * width * factor, y - fixedY * height * factor,
      x + (1 - fixedX) * width * factor, y + (1 - fixedY) * height * factor,
    ];
  }
  return [
    Math.min(result[0], result[2]), Math.min(result[1], result[3]),
    Math.max(result[0], result[2]), Math.max(result[1], result[3]),
  ];
}

/** The centers of a track on all frames, through the camera. */
export function pathOf(project, track) {
  return Array.from({ length: project.num_frames }, (_, frame) =>
    centerOf(visibleBox(project, track, frame)),
  );
}

/** The frames around the current one that are shown as ghosts. */
export function ghostFrames(project, track, frame) {
  const step = Math.max(1, Math.round(project.num_frames / 12));
  const frames = [];
  for (let k = 1; k <= 3; k += 1) frames.push(frame - k * step, frame + k * step);
  const [first, last] = [0, project.num_frames - 1];
  return frames.filter((f) => f >= first && f <= last && moves(track, f, frame));
}

function moves(track, frame, other) {
  const [a, b] = [boxAt(track, frame), boxAt(track, other)];
  return a.some((edge, i) => Math.abs(edge - b[i]) > 1e-4) || keyframeAt(track, frame) !== null;
}
