// Images: checked by the server, decoded by the browser, stored in their original encoding.

import { api } from "./api.js";

/** The image {name, blob, width, height, bitmap} of a file; an Error if the server cannot read it. */
export async function decodeImage(blob, name, model) {
  if (blob.size > model.max_upload) {
    const [has, limit] = [blob.size, model.max_upload].map((size) => Math.round(size / 2 ** 20));
    throw new Error(`${name} has ${has} MB, more than ${limit} MB: use a smaller file.`);
  }
  const size = await api.checkImage(new File([blob], name));
  let bitmap = await createImageBitmap(blob).catch(() => null);
  if (!bitmap || bitmap.width !== size.width || bitmap.height !== size.height) {
    // The browser does not support the format or its rotation.
    blob = await api.asPng(new File([blob], name));
    name = name.replace(/\.\w+$/, "") + ".png";
    bitmap = await createImageBitmap(blob);
  }
  return { name, blob, width: bitmap.width, height: bitmap.height, bitmap };
}

/** The image as a PNG with a limited longer side. */
export function smallPng(image, longSide) {
  const scale = Math.min(1, longSide / Math.max(image.width, image.height));
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.round(image.width * scale)), Math.max(1, Math.round(image.height * scale)),
  );
  canvas.getContext("2d").drawImage(image.bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob();
}
