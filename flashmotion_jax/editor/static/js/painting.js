// Drawing of the stage: the image and its crop, boxes, ghosts, paths, masks.

import { HANDLES, POINT_RADIUS, cropOf, ghostFrames, seenKeyframe, visibleBox, pathOf } from "./geometry.js";
import { UNIT, cameraAt, centerOf, isPoint } from "./motion.js";
import { pixelsOf } from "./masks.js";
import { displayColor, rgbOf } from "./palette.js";
import { findTrack } from "./project.js";

const CAMERA = "#ffd166";
const FONT = "12px system-ui, sans-serif";
const tinted = new WeakMap();

/** Draws the stage; `extra` holds the rubber band, stroke and brush of a gesture. */
export function paintStage(context, { project, view, place, size, extra }) {
  const { canvas } = context;
  const ratio = canvas.width / canvas.clientWidth || 1;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  context.font = FONT;
  paintImage(context, project, view, place);
  if (view.frame === 0 || view.tool === "paint" || view.tool === "erase") {
    for (const object of project.objects) if (object.mask && !object.hidden) paintMask(context, object, place);
  }
  if (extra.stroke) context.drawImage(extra.stroke, place.left, place.top, place.width, place.height);
  paintCrop(context, project, place, size);
  const selected = findTrack(project, view.selected);
  const shown = [...project.objects].filter((object) => !object.hidden).sort((a, b) => a.id - b.id);
  for (const object of shown) {
    if (view.onion && !view.playing && (!selected || object === selected)) paintGhosts(context, project, view, place, object);
  }
  if (selected && !selected.hidden) paintPath(context, project, view, place, selected);
  for (const object of shown) paintBox(context, project, view, place, object, object === selected);
  if (project.camera && selected === project.camera) paintBox(context, project, view, place, selected, true);
  paintExtra(context, place, extra);
}

function paintImage(context, project, view, place) {
  const [x0, y0, x1, y1] = place.box(cameraAt(project, view.frame));
  context.fillStyle = "#23272f";
  context.fillRect(place.left, place.top, place.width, place.height);
  if (project.image) {
    context.imageSmoothingEnabled = (x1 - x0) / project.image.width < 3;
    context.drawImage(project.image.bitmap, x0, y0, x1 - x0, y1 - y0);
  } else if (project.camera) {
    context.strokeStyle = "#5b6472";
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  context.strokeStyle = "#c8d0dc";
  context.lineWidth = 1;
  context.strokeRect(place.left - 0.5, place.top - 0.5, place.width + 1, place.height + 1);
}

/** Darkens everything outside the crop that the model sees. */
function paintCrop(context, project, place, size) {
  const { clientWidth, clientHeight } = context.canvas;
  const shade = (box, color) => {
    const [x0, y0, x1, y1] = place.box(box);
    context.beginPath();
    context.rect(0, 0, clientWidth, clientHeight);
    context.rect(x0, y0, x1 - x0, y1 - y0);
    context.fillStyle = color;
    context.fill("evenodd");
    return [x0, y0, x1, y1];
  };
  shade(UNIT, "rgb(15 17 21 / 55%)");
  const crop = cropOf(project.canvas, size);
  if (crop[0] <= 0.001 && crop[1] <= 0.001) {
    const [left, , , bottom] = place.box(UNIT);
    const change = (size.width / size.height) / (project.canvas.width / project.canvas.height);
    if (Math.abs(change - 1) > 0.02) label(context, `stretched to ${size.width} × ${size.height}`, left + 4, bottom - 6, "#ffffff");
    return;
  }
  const [x0, y0, x1, y1] = shade(crop, "rgb(15 17 21 / 55%)");
  context.setLineDash([6, 4]);
  context.strokeStyle = "#ffffff";
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.setLineDash([]);
  label(context, `the model sees ${size.width} × ${size.height}`, x0 + 4, y1 - 6, "#ffffff");
}

function paintMask(context, object, place) {
  context.globalAlpha = 0.55;
  context.imageSmoothingEnabled = false;
  context.drawImage(tintedMask(object), place.left, place.top, place.width, place.height);
  context.globalAlpha = 1;
}

/** The mask as an image in the color of the object. */
export function tintedMask(object) {
  const color = rgbOf(object).join();
  const known = tinted.get(object.mask);
  if (known?.color === color) return known.picture;
  const [height, width] = object.mask.size;
  const picture = new OffscreenCanvas(width, height);
  const data = new ImageData(width, height);
  const words = new Uint32Array(data.data.buffer);
  const [r, g, b] = rgbOf(object).map((channel) => Math.min(255, channel + 60));
  const word = new Uint32Array(Uint8Array.of(r, g, b, 255).buffer)[0];
  pixelsOf(object.mask).forEach((inside, i) => inside && (words[i] = word));
  picture.getContext("2d").putImageData(data, 0, 0);
  tinted.set(object.mask, { color, picture });
  return picture;
}

function paintGhosts(context, project, view, place, object) {
  context.strokeStyle = displayColor(object);
  for (const frame of ghostFrames(project, object, view.frame)) {
    const distance = Math.abs(frame - view.frame) / project.num_frames;
    context.globalAlpha = Math.max(0.12, 0.5 - 1.6 * distance);
    context.setLineDash(frame < view.frame ? [2, 3] : []);
    outline(context, place.box(visibleBox(project, object, frame)), 1);
  }
  context.globalAlpha = 1;
  context.setLineDash([]);
}

/** The path of the center, with a dot per frame and a numbered mark per keyframe. */
function paintPath(context, project, view, place, track) {
  const points = pathOf(project, track).map(place.toStage);
  const color = track === project.camera ? CAMERA : displayColor(track);
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = 1.5;
  context.beginPath();
  points.forEach((point, i) => (i ? context.lineTo(...point) : context.moveTo(...point)));
  context.globalAlpha = 0.75;
  context.stroke();
  for (const [x, y] of points) context.fillRect(x - 1.5, y - 1.5, 3, 3);
  context.globalAlpha = 1;
  for (const keyframe of track.keyframes) {
    const [x, y] = place.toStage(centerOf(seenKeyframe(project, track, keyframe)));
    const current = keyframe.frame === view.frame;
    context.beginPath();
    for (const [dx, dy] of [[0, -6], [6, 0], [0, 6], [-6, 0]]) context.lineTo(x + dx, y + dy);
    context.closePath();
    context.fillStyle = current ? "#ffffff" : color;
    context.fill();
    context.strokeStyle = "#0f1115";
    context.lineWidth = 1;
    context.stroke();
    if (!view.playing) label(context, String(keyframe.frame), x + 9, y - 5, "#ffffff");
  }
}

function paintBox(context, project, view, place, track, selected) {
  const isCamera = track === project.camera;
  const box = place.box(visibleBox(project, track, view.frame));
  const color = isCamera ? CAMERA : displayColor(track);
  context.setLineDash(track.locked ? [5, 4] : []);
  context.strokeStyle = "rgb(15 17 21 / 80%)";
  outline(context, box, selected ? 5 : 4);
  context.strokeStyle = color;
  outline(context, box, selected ? 2.5 : 1.75);
  context.setLineDash([]);
  const above = isPoint(visibleBox(project, track, view.frame)) ? POINT_RADIUS + 6 : 6;
  if (!view.playing) label(context, isCamera ? "camera" : track.name, box[0] + 2, box[1] - above, color);
  if (!selected || track.locked || view.playing || isPoint(visibleBox(project, track, view.frame))) return;
  for (const [u, v] of HANDLES) {
    if (isCamera && (u === 0.5 || v === 0.5)) continue;
    const [x, y] = [box[0] + u * (box[2] - box[0]), box[1] + v * (box[3] - box[1])];
    context.fillStyle = "#ffffff";
    context.strokeStyle = "#0f1115";
    context.lineWidth = 1;
    context.fillRect(x - 4, y - 4, 8, 8);
    context.strokeRect(x - 4, y - 4, 8, 8);
  }
}

function paintExtra(context, place, { band, brush }) {
  if (band) {
    context.setLineDash([4, 3]);
    context.strokeStyle = "#ffffff";
    outline(context, place.box(band), 1.5);
    context.setLineDash([]);
  }
  if (brush) {
    context.strokeStyle = "#ffffff";
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(...brush.point, brush.radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** The outline of a box, or a ring with a cross around a point. */
function outline(context, [x0, y0, x1, y1], width) {
  context.lineWidth = width;
  if (x1 - x0 > 1e-6 || y1 - y0 > 1e-6) {
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    return;
  }
  context.beginPath();
  context.arc(x0, y0, POINT_RADIUS, 0, 2 * Math.PI);
  for (const [dx, dy] of [[1, 0], [0, 1]]) {
    context.moveTo(x0 - dx * POINT_RADIUS / 2, y0 - dy * POINT_RADIUS / 2);
    context.lineTo(x0 + dx * POINT_RADIUS / 2, y0 + dy * POINT_RADIUS / 2);
  }
  context.stroke();
}

/** Text with an outline, readable on any background. */
function label(context, text, x, y, color) {
  context.lineWidth = 3;
  context.strokeStyle = "#0f1115";
  context.lineJoin = "round";
  context.strokeText(text, x, y);
  context.fillStyle = color;
  context.fillText(text, x, y);
}
