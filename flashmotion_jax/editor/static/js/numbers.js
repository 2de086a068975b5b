// Rounding and spacing identical to Python and NumPy, so that the preview equals the Python renderer.

/** Rounds half to even. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** `count` numbers from 0 to `stop`, inclusive. */
export function linspace(stop, count) {
  const step = count > 1 ? stop / (count - 1) : 0;
  const values = Array.from({ length: count }, (_, i) => i * step);
  if (count > 1) values[count - 1] = stop;
  return values;
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/**
 * How a picture reaches the size of a video, as `Fit` of media/geometry.py: the size that it is
 * resized to, and the position of the video in it. Sizes are {height, width} in pixels; the
 * target's `resize` is "stretch", or "crop" to cover the size and take the center.
 */
export function fitGeometry(source, target) {
  if (target.resize === "stretch") return { height: target.height, width: target.width, top: 0, left: 0 };
  const scale = Math.max(target.width / source.width, target.height / source.height);
  const height = roundHalfEven(source.height * scale);
  const width = roundHalfEven(source.width * scale);
  const top = Math.floor((height - target.height) / 2);
  const left = Math.floor((width - target.width) / 2);
  return { height, width, top, left };
}
