// ThumbHash: from some 25 bytes back to a blurred picture. The format is Evan Wallace's,
// https://evanw.github.io/thumbhash/; frontend/images/thumbhash.py writes it.

const EDGE = 32;

function bytesOf(base64) {
  try {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

/** One channel: its average, and its waves as [across, down, height]. */
function channel(mean, across, down, scale, nibble) {
  const waves = [];
  for (let y = 0; y < down; y++) {
    for (let x = y ? 0 : 1; x * down < across * (down - y); x++) {
      waves.push([x, y, (nibble() / 7.5 - 1) * scale]);
    }
  }
  return { mean, waves };
}

function parse(bytes) {
  const first = bytes[0] | (bytes[1] << 8) | (bytes[2] << 16);
  const second = bytes[3] | (bytes[4] << 8);
  const clear = Boolean(first >> 23);
  const landscape = Boolean(second >> 15);
  const most = clear ? 5 : 7;
  const shorter = second & 7;
  const [across, down] = landscape ? [most, shorter] : [shorter, most];
  let place = (clear ? 6 : 5) * 2;
  const nibble = () => {
    const byte = bytes[place >> 1] ?? 0;
    return place++ & 1 ? byte >> 4 : byte & 15;
  };
  // Colours are made a little stronger: rounding to four bits takes some of them away.
  const light = channel((first & 63) / 63, Math.max(3, across), Math.max(3, down), ((first >> 18) & 31) / 31, nibble);
  const yellow = channel(((first >> 6) & 63) / 31.5 - 1, 3, 3, (((second >> 3) & 63) / 63) * 1.25, nibble);
  const red = channel(((first >> 12) & 63) / 31.5 - 1, 3, 3, (((second >> 9) & 63) / 63) * 1.25, nibble);
  const alpha = clear ? channel((bytes[5] & 15) / 15, 5, 5, (bytes[5] >> 4) / 15, nibble) : { mean: 1, waves: [] };
  return { light, yellow, red, alpha, ratio: across / down };
}

function valueAt(part, cosinesX, cosinesY) {
  let value = part.mean;
  for (const [x, y, height] of part.waves) value += height * 2 * cosinesX[x] * cosinesY[y];
  return value;
}

const cosines = (count) =>
  Array.from({ length: count }, (_, place) =>
    Array.from({ length: 8 }, (_, wave) => Math.cos((Math.PI / count) * (place + 0.5) * wave)),
  );

/** Paints a hash, as base64, onto a canvas. Whether it was one. */
export function paint(canvas, base64) {
  const bytes = bytesOf(base64);
  if (bytes.length < 6) return false;
  const { light, yellow, red, alpha, ratio } = parse(bytes);
  canvas.width = Math.max(1, Math.round(ratio > 1 ? EDGE : EDGE * ratio));
  canvas.height = Math.max(1, Math.round(ratio > 1 ? EDGE / ratio : EDGE));
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const [columns, rows] = [cosines(canvas.width), cosines(canvas.height)];
  let at = 0;
  for (const inRow of rows) {
    for (const inColumn of columns) {
      const [l, p, q] = [light, yellow, red].map((part) => valueAt(part, inColumn, inRow));
      const blue = l - (2 / 3) * p;
      const redness = (3 * l - blue + q) / 2;
      pixels.data.set([redness, redness - q, blue, valueAt(alpha, inColumn, inRow)].map((v) => 255 * v), at);
      at += 4;
    }
  }
  context.putImageData(pixels, 0, 0);
  return true;
}
