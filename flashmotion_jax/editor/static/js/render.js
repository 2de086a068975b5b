// Rendering of trajectory maps, pixel-identical to trajectory/render.py and trajectory/drawing.py.

import { interpolate, pointKeyframes } from "./motion.js";
import { pixelsOf } from "./masks.js";
import { fitGeometry, linspace, roundHalfEven } from "./numbers.js";
import { rgbOf } from "./palette.js";

const BLACK = new Uint32Array(Uint8Array.of(0, 0, 0, 255).buffer)[0];

/** Renders single frames of a trajectory's maps. */
export class Renderer {
  /**
   * @param {object} trajectory - format v1, masks as run lengths.
   * @param {{height, width, resize, frames, mapKind}} wanted - sizes in pixels; mapKind: a kind of `trajectory/render.py`.
   */
  constructor(trajectory, { height, width, resize, frames, mapKind, pointSigma }) {
    Object.assign(this, { height, width, mapKind, sigma: pointSigma * Math.min(height, width) });
    const { canvas, objects } = trajectory;
    this.frames = frames ?? trajectory.num_frames;
    this.fit = fitGeometry(canvas, { height, width, resize });
    const times = linspace(trajectory.num_frames - 1, this.frames);
    this.drawn = drawnFrames(trajectory, this.frames);
    this.radius = strokeRadius(height, width);
    // The painting order is MagicMotion's, see render in trajectory/render.py.
    this.objects = [...objects].sort((a, b) => a.id - b.id).map((object) => ({
      rgb: rgbOf(object),
      mask: object.mask,
      boxes: times.map((time) => this.#toPixels(boxOf(object, time))),
      shown: times.map((time) => isShown(object, time)),
    }));
  }

  /** Renders a frame into RGBA pixels and returns them. */
  render(frame, rgba = new Uint8ClampedArray(4 * this.height * this.width)) {
    new Uint32Array(rgba.buffer, rgba.byteOffset, rgba.length / 4).fill(BLACK);
    if (!this.drawn[frame]) return rgba;
    const shown = this.objects.filter((object) => object.shown[frame]);
    const later = frame > 0;
    if (!later || this.mapKind === "mask" || this.mapKind === "filled_box") {
      this.#fill(rgba, frame, shown, !later || this.mapKind === "mask");
    }
    for (const { boxes, rgb } of shown) {
      const box = boxes[frame];
      if (later && this.mapKind === "box") this.#outline(rgba, box.map(roundHalfEven), rgb);
      if (this.mapKind === "points" && (later || !hasExtent(box))) this.#point(rgba, box, rgb);
    }
    return rgba;
  }

  /** Fills masks, moved with the boxes, or boxes, the largest first. */
  #fill(rgba, frame, shown, carriesMasks) {
    const areas = shown.map((object) =>
      object.mask && carriesMasks ? this.#carried(object, frame) : this.#filled(object.boxes[frame]),
    );
    const order = areas.map((_, k) => k).sort((a, b) => areas[a].count - areas[b].count || a - b);
    for (const k of order.reverse()) this.#paint(rgba, areas[k], shown[k].rgb);
  }

  /** A Gaussian at the center of a box, which vanishes outside the picture. */
  #point(rgba, [x0, y0, x1, y1], rgb) {
    const { height, width, sigma } = this;
    const [x, y] = [(x0 + x1) / 2, (y0 + y1) / 2];
    if (!(x >= 0 && x < width && y >= 0 && y < height)) return;
    const [left, right] = [Math.max(Math.floor(x - 4 * sigma), 0), Math.min(Math.ceil(x + 4 * sigma) + 1, width)];
    const [top, bottom] = [Math.max(Math.floor(y - 4 * sigma), 0), Math.min(Math.ceil(y + 4 * sigma) + 1, height)];
    for (let row = top; row < bottom; row += 1) {
      for (let column = left; column < right; column += 1) {
        const weight = Math.exp(-((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2) / (2 * sigma ** 2));
        const i = 4 * (row * width + column);
        for (const c of [0, 1, 2]) rgba[i + c] = Math.max(rgba[i + c], roundHalfEven(weight * rgb[c]));
      }
    }
  }

  #toPixels(box) {
    const { height, width, top, left } = this.fit;
    return [box[0] * width - left, box[1] * height - top, box[2] * width - left, box[3] * height - top];
  }

  #outline(rgba, [x0, y0, x1, y1], rgb) {
    const { radius, height, width } = this;
    const top = Math.max(y0 - radius, 0);
    const left = Math.max(x0 - radius, 0);
    const bottom = Math.min(y1 + radius + 1, height);
    const right = Math.min(x1 + radius + 1, width);
    for (let y = top; y < bottom; y += 1) {
      const beyondY = Math.max(0, y0 - y, y - y1);
      const innerY = y > y0 + radius && y < y1 - radius;
      for (let x = left; x < right; x += 1) {
        if (innerY && x > x0 + radius && x < x1 - radius) {
          x = Math.max(x, Math.min(x1 - radius, right) - 1); // skip the interior
          continue;
        }
        const beyondX = Math.max(0, x0 - x, x - x1);
        if (beyondY ** 2 + beyondX ** 2 <= radius ** 2) this.#dot(rgba, y * width + x, rgb);
      }
    }
  }

  /** The pixels whose centers are in a box. */
  #filled([x0, y0, x1, y1]) {
    const [left, right] = centersWithin(x0, x1, this.width);
    const [top, bottom] = centersWithin(y0, y1, this.height);
    return { left, right, top, bottom, count: Math.max(0, right - left) * Math.max(0, bottom - top) };
  }

  /** The mask of frame 0, moved and scaled from its box to another box. */
  #carried({ mask, boxes }, frame) {
    const { fit, height, width } = this;
    const [sourceHeight, sourceWidth] = mask.size;
    const [first, now] = [boxes[0], boxes[frame]];
    const rows = carriedBack(height, first[1], first[3], now[1], now[3], fit.top, fit.height, sourceHeight);
    const columns = carriedBack(width, first[0], first[2], now[0], now[2], fit.left, fit.width, sourceWidth);
    const source = pixelsOf(mask);
    const inside = new Uint8Array(height * width);
    let count = 0;
    for (let y = 0; y < height; y += 1) {
      if (rows[y] < 0) continue;
      for (let x = 0; x < width; x += 1) {
        if (columns[x] < 0 || !source[rows[y] * sourceWidth + columns[x]]) continue;
        inside[y * width + x] = 1;
        count += 1;
      }
    }
    return { inside, count };
  }

  #paint(rgba, area, rgb) {
    if (area.inside) {
      area.inside.forEach((value, i) => value && this.#dot(rgba, i, rgb));
      return;
    }
    for (let y = area.top; y < area.bottom; y += 1) {
      for (let x = area.left; x < area.right; x += 1) this.#dot(rgba, y * this.width + x, rgb);
    }
  }

  #dot(rgba, i, rgb) {
    [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]] = rgb;
  }
}

/** The box of an object of a file at a time; of points, one without extent. */
function boxOf({ keyframes, points }, time) {
  return interpolate(keyframes ?? pointKeyframes(points), time);
}

/** Whether an object of a file is not hidden: between two frames, on both. */
function isShown({ points }, time) {
  return !points || Boolean(points[Math.floor(time)] && points[Math.ceil(time)]);
}

/** Whether a box covers an area; that of a point does not. */
function hasExtent([x0, y0, x1, y1]) {
  return x1 > x0 && y1 > y0;
}

/** The radius of strokes, as in OpenCV. */
function strokeRadius(height, width) {
  const thickness = Math.floor(Math.min(height, width) / 100);
  return thickness > 1 ? Math.floor((thickness + 1) / 2) : 0;
}

/** Whether each frame shows boxes: all, or those of `sparse_frames` after stretching. */
function drawnFrames(trajectory, length) {
  const sparse = trajectory.sparse_frames;
  const drawn = new Array(length).fill(!sparse);
  drawn[0] = true;
  for (const frame of sparse ?? []) {
    const at = roundHalfEven((frame * (length - 1)) / Math.max(trajectory.num_frames - 1, 1));
    drawn[Math.min(Math.max(at, frame > 0 ? 1 : 0), length - 1)] = true;
  }
  return drawn;
}

/** The first and one past the last pixel whose center is in low <= center < high. */
function centersWithin(low, high, length) {
  let start = 0;
  while (start < length && start + 0.5 < low) start += 1;
  let end = start;
  while (end < length && end + 0.5 < high) end += 1;
  return [start, end];
}

/** The index of the mask pixel for each pixel of a line; -1 outside. */
function carriedBack(length, first0, first1, now0, now1, offset, resized, sourceLength) {
  const extent = now1 - now0;
  if (extent < 1e-3) return new Int32Array(length).fill(-1);
  const scale = (first1 - first0) / extent;
  const shift = first0 - now0 * scale;
  return Int32Array.from({ length }, (_, i) => {
    // A position between two pixels belongs to the second, also if it was rounded down.
    const index = Math.floor((((i + 0.5) * scale + shift + offset) / resized) * sourceLength + 1e-6);
    return index >= 0 && index < sourceLength ? index : -1;
  });
}
