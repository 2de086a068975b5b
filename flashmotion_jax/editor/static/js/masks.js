// Masks as uncompressed COCO run lengths, column by column, starting outside.

import { roundHalfEven } from "./numbers.js";

const decoded = new WeakMap();

/** The pixels of a mask, row by row: Uint8Array of 0 and 1, which must not be changed. */
export function pixelsOf(mask) {
  let pixels = decoded.get(mask);
  if (!pixels) {
    const [height, width] = mask.size;
    pixels = new Uint8Array(height * width);
    let at = 0;
    mask.counts.forEach((count, k) => {
      if (k % 2) {
        for (let i = at; i < at + count; i += 1) {
          pixels[(i % height) * width + Math.floor(i / height)] = 1;
        }
      }
      at += count;
    });
    decoded.set(mask, pixels);
  }
  return pixels;
}

/** The mask of pixels in row-major order; nonzero pixels are inside. */
export function maskOf(pixels, height, width) {
  const counts = [];
  let [inside, run] = [false, 0];
  for (let x = 0; x < width; x += 1) {
    for (let y = 0; y < height; y += 1) {
      if (Boolean(pixels[y * width + x]) !== inside) {
        counts.push(run);
        [inside, run] = [!inside, 0];
      }
      run += 1;
    }
  }
  counts.push(run);
  return { size: [height, width], counts };
}

/** The bounding box of a mask as fractions, or null if it is empty. */
export function boxOf(mask) {
  const [height, width] = mask.size;
  const pixels = pixelsOf(mask);
  let [x0, y0, x1, y1] = [width, height, -1, -1];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (!pixels[y * width + x]) continue;
      if (x < x0) x0 = x;
      if (x > x1) x1 = x;
      if (y < y0) y0 = y;
      y1 = y;
    }
  }
  if (x1 < 0) return null;
  return [x0 / width, y0 / height, (x1 + 1) / width, (y1 + 1) / height];
}

/** The share of the image that is inside. */
export function areaOf(mask) {
  const inside = mask.counts.reduce((sum, count, k) => sum + (k % 2 ? count : 0), 0);
  return inside / (mask.size[0] * mask.size[1]);
}

/** A mask resized by nearest-neighbor sampling. */
export function resized(mask, height, width) {
  const [sourceHeight, sourceWidth] = mask.size;
  if (sourceHeight === height && sourceWidth === width) return mask;
  const source = pixelsOf(mask);
  const target = new Uint8Array(height * width);
  for (let y = 0; y < height; y += 1) {
    const row = Math.floor(((y + 0.5) * sourceHeight) / height) * sourceWidth;
    for (let x = 0; x < width; x += 1) {
      target[y * width + x] = source[row + Math.floor(((x + 0.5) * sourceWidth) / width)];
    }
  }
  return maskOf(target, height, width);
}

/** A mask mirrored along an axis, "x" or "y". */
export function mirrored(mask, axis) {
  const [height, width] = mask.size;
  const source = pixelsOf(mask);
  const target = new Uint8Array(height * width);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const from = axis === "x" ? y * width + width - 1 - x : (height - 1 - y) * width + x;
      target[y * width + x] = source[from];
    }
  }
  return maskOf(target, height, width);
}

/** A mask moved by fractions of the image, and cropped. */
export function moved(mask, dx, dy) {
  const [height, width] = mask.size;
  const [right, down] = [roundHalfEven(dx * width), roundHalfEven(dy * height)];
  const source = pixelsOf(mask);
  const target = new Uint8Array(height * width);
  for (let y = Math.max(0, down); y < Math.min(height, height + down); y += 1) {
    for (let x = Math.max(0, right); x < Math.min(width, width + right); x += 1) {
      target[y * width + x] = source[(y - down) * width + x - right];
    }
  }
  return maskOf(target, height, width);
}
