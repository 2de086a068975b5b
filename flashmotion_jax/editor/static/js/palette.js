// The colors of objects: MagicData's, which the models were trained on, and further ones.

export const PALETTE = [
  [82, 40, 126], [128, 32, 32], [128, 80, 80], [128, 59, 26], [128, 91, 26], [104, 106, 26],
  [38, 126, 9], [74, 104, 13], [32, 111, 69], [14, 75, 32], [0, 107, 96], [23, 78, 85],
  [0, 98, 128], [27, 36, 76], [51, 58, 128], [0, 12, 120], [67, 29, 128], [42, 0, 68],
  [102, 29, 128], [128, 76, 101], [128, 28, 100],
];

/** The color [r, g, b] of an id: MagicData's up to 21, then one of furtherColors. */
export function paletteColor(id) {
  if (id <= PALETTE.length) return PALETTE[id % PALETTE.length];
  further ??= furtherColors();
  return further[id - PALETTE.length - 1];
}

let further;

/** The colors of `_further_colors` in trajectory/palette.py. */
function furtherColors() {
  const colors = [];
  for (const step of [32, 16, 8]) {
    const count = 256 / step;
    const factor = Math.floor(0.618 * count ** 3) | 1;
    for (let i = 0; i < count ** 3; i += 1) {
      const point = (i * factor) % count ** 3;
      const digits = [Math.floor(point / count ** 2), Math.floor(point / count) % count, point % count];
      const color = digits.map((digit) => step / 2 + step * digit);
      const isNear = (other) => Math.max(...other.map((channel, k) => Math.abs(channel - color[k]))) < step / 2;
      if (Math.max(...color) >= 64 && !PALETTE.some(isNear)) colors.push(color);
    }
  }
  return colors;
}

export function toHex(rgb) {
  return "#" + rgb.map((channel) => channel.toString(16).padStart(2, "0")).join("");
}

/** The color [r, g, b] of an object in the maps. */
export function rgbOf(object) {
  if (!object.color) return paletteColor(object.id);
  return [1, 3, 5].map((at) => parseInt(object.color.slice(at, at + 2), 16));
}

/** The color of an object on the page: the hue of its map color, brightened for the dark page. */
export function displayColor(object) {
  const rgb = rgbOf(object);
  const factor = 255 / Math.max(...rgb, 1);
  return `rgb(${rgb.map((channel) => Math.round(70 + (channel * factor * 185) / 255)).join(" ")})`;
}
