/**
  * Arrays as bytes: NumPy's .npy format, version 1.0, which the service reads and writes as
  * application/x-npy. Only the two element types that the service uses are here: uint8 and float32.
 */

const MAGIC = "\x93NUMPY\x01\x00";
const HEAD_BYTES = 10; // The magic string, then the header's length as uint16.
const ALIGNMENT = 64;

const DESCRIPTIONS = new Map([[Uint8Array, "|u1"], [Float32Array, "<f4"]]);
const TYPES = new Map([["|u1", Uint8Array], ["<f4", Float32Array]]);

/**
 * @param {Uint8Array | Float32Array} data in C order
 * @param {number[]} shape
 * @returns {Uint8Array} a .npy file
 */
export function pack(data, shape) {
  const axes = shape.join(", ") + (shape.length === 1 ? "," : "");
  const description = DESCRIPTIONS.get(data.constructor);
  const fields = `{'descr': '${description}', 'fortran_order': False, 'shape': (${axes}), }`;
  const length = Math.ceil((HEAD_BYTES + fields.length + 1) / ALIGNMENT) * ALIGNMENT;
  const header = MAGIC + "  " + fields.padEnd(length - HEAD_BYTES - 1) + "\n";
  const file = new Uint8Array(length + data.byteLength);
  file.set(Uint8Array.from(header, (character) => character.charCodeAt(0)));
  new DataView(file.buffer).setUint16(MAGIC.length, length - HEAD_BYTES, true);
  file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), length);
  return file;
}

/**
 * @param {ArrayBuffer} file
 * @returns {{data: Uint8Array | Float32Array, shape: number[]}}
 */
export function unpack(file) {
  const length = HEAD_BYTES + new DataView(file).getUint16(MAGIC.length, true);
  const header = String.fromCharCode(...new Uint8Array(file, HEAD_BYTES, length - HEAD_BYTES));
  const Type = TYPES.get(/'descr': '([^']+)'/.exec(header)[1]);
  const axes = /'shape': \(([^)]*)\)/.exec(header)[1];
  return { data: new Type(file.slice(length)), shape: axes.match(/\d+/g).map(Number) };
}
