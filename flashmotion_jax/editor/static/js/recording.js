// Recording of motion: the object follows the pointer in real time.

import { say } from "./dom.js";
import { cameraAt, keyframesFromBoxes, outOfCamera, shifted, tidied, tolerance } from "./motion.js";
import { visibleBox } from "./geometry.js";
import { findTrack } from "./project.js";

/** Largest error of keyframes, in pixels of a canvas 1000 pixels wide. */
const TOLERANCE = 3;

export function recordDrag(stage, track, start) {
  const { store } = stage;
  const { uid } = track;
  const first = store.view.frame;
  const last = store.project.num_frames - 1;
  if (first === last) {
    say("Go to an earlier frame: recording runs from the current frame to the last.", true);
    return null;
  }
  const isCamera = track === store.project.camera;
  const project = store.project;
  const box = visibleBox(project, track, first);
  const began = performance.now();
  const rate = (project.fps * store.view.speed) / 1000; // frames a millisecond
  const samples = [{ time: 0, point: start }];
  let latest = start;
  let over = false;
  store.begin(`Record ${isCamera ? "the camera" : track.name}`);
  const tick = () => {
    if (over) return;
    const time = performance.now() - began;
    samples.push({ time, point: latest });
    const now = Math.min(last, first + Math.floor(time * rate));
    if (now > first) {
      store.update((draft) => write(draft, now));
      store.show({ frame: now });
    }
    if (now === last) drag.end();
    else requestAnimationFrame(tick);
  };
  const write = (draft, end) => {
    const boxes = boxesOf(stage, { project, box, start, samples, rate, first, end, follows: !isCamera && !track.pinned });
    const frames = boxes.map((_, k) => first + k);
    const allowed = tolerance(project.canvas, (TOLERANCE * project.canvas.width) / 1000);
    const recorded = keyframesFromBoxes(frames, boxes, allowed);
    const target = findTrack(draft, uid);
    target.keyframes = [...target.keyframes.filter((key) => key.frame < first || key.frame > end), ...recorded]
      .sort((a, b) => a.frame - b.frame);
    target.path = "straight";
  };
  const drag = {
    move: (point) => { latest = point; },
    end() {
      if (over) return;
      over = true;
      store.end();
      store.show({ recording: false });
      say("Recorded. Undo to try again.");
    },
    cancel() {
      over = true;
      store.cancel();
      store.show({ recording: false, frame: first });
    },
  };
  requestAnimationFrame(tick);
  return drag;
}

/** The boxes on the frames from `first` to `end`, at smoothed positions of the pointer. */
function boxesOf(stage, { project, box, start, samples, rate, first, end, follows }) {
  const place = stage.place();
  const points = [];
  let k = 0;
  for (let frame = first; frame <= end; frame += 1) {
    const time = (frame - first) / rate;
    while (k < samples.length - 2 && samples[k + 1].time < time) k += 1;
    const [a, b] = [samples[k], samples[k + 1] ?? samples[k]];
    const part = b.time > a.time ? Math.min(1, (time - a.time) / (b.time - a.time)) : 0;
    points.push([0, 1].map((axis) => a.point[axis] + part * (b.point[axis] - a.point[axis])));
  }
  return points.map((point, i) => {
    // On the first frame, the object stays where it was.
    const [before, after] = i ? [points[i - 1], points[i + 1] ?? point] : [point, point];
    const [x, y] = [0, 1].map((axis) => (before[axis] + 2 * point[axis] + after[axis]) / 4 - start[axis]);
    const moved = shifted(box, x / place.width, y / place.height);
    const scene = follows && project.camera ? outOfCamera(cameraAt(project, first + i), moved) : moved;
    return tidied(scene);
  });
}
