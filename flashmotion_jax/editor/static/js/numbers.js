// Numbers as numpy and Python round and space them: the preview must equal the Python renderer.

/** Rounds halves to the even neighbor. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** `count` numbers from 0 to `stop`, both included. */
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
 * Where "resize to cover, then crop the center" puts the target in the resized source.
 * Sizes are {height, width} in pixels.
 */
export function coverGeometry(source, target) {
  const scale = Math.max(target.width / source.width, target.height / source.height);
  const height = roundHalfEven(source.height * scale);
  const width = roundHalfEven(source.width * scale);
  const top = Math.floor((height - target.height) / 2);
  const left = Math.floor((width - target.width) / 2);
  return { height, width, top, left };
}
