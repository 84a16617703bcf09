/**
  * Paints pixels on canvases.
  *
  * For a model of ink on a plain background (grey, polarity "auto": MNIST and its like), only the ink
  * is painted, in black on transparent; the style sheet inverts it in the dark scheme. The pixels of
  * any other model are painted as they are.
 */

/** @param {{channels: number, polarity: string}} image of the model */
export function isInk(image) {
  return image.channels === 1 && image.polarity === "auto";
}

/**
  * @param {HTMLCanvasElement} canvas is given the picture's size
 * @param {Uint8Array} pixels [C, H, W]
 * @param {{channels: number, height: number, width: number, polarity: string}} image
  * @param {string} [ink] the ink's colour
 */
export function paint(canvas, pixels, image, ink = "#000") {
  const { height, width } = image;
  canvas.width = width;
  canvas.height = height;
  canvas.classList.toggle("ink", isInk(image));
  const context = canvas.getContext("2d");
  context.putImageData(toImageData(pixels, image), 0, 0);
  if (!isInk(image) || ink === "#000") return;
  context.globalCompositeOperation = "source-in";
  context.fillStyle = ink;
  context.fillRect(0, 0, width, height);
}

function toImageData(pixels, image) {
  const { channels, height, width } = image;
  const size = height * width;
  const picture = new ImageData(width, height);
  const ink = isInk(image);
  for (let i = 0; i < size; i++) {
    for (let channel = 0; channel < 3; channel++) {
      const source = channels >= 3 ? channel * size : 0;
      picture.data[4 * i + channel] = ink ? 0 : pixels[source + i];
    }
    picture.data[4 * i + 3] = ink ? pixels[i] : 255;
  }
  return picture;
}
