/** Tensors of files in memory, whatever the format of the file: element types, arrays, and the way to f32. */
import { float32FromBFloat16, float32FromFloat16 } from "./halfPrecision.js";
import { type SafetensorsDType, safetensorsDTypeBytes } from "./safetensorsHeader.js";

/** Memory for the elements of a tensor; f16 and bf16 are held as their bits. */
export type SafetensorsData =
  | Float64Array
  | Float32Array
  | BigInt64Array
  | BigUint64Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

/** A tensor, or some rows of one, in memory. */
export interface SafetensorsArray {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  readonly data: SafetensorsData;
}

interface ArrayOf {
  readonly F64: typeof Float64Array;
  readonly F32: typeof Float32Array;
  readonly F16: typeof Uint16Array;
  readonly BF16: typeof Uint16Array;
  readonly I64: typeof BigInt64Array;
  readonly I32: typeof Int32Array;
  readonly I16: typeof Int16Array;
  readonly I8: typeof Int8Array;
  readonly U8: typeof Uint8Array;
  readonly BOOL: typeof Uint8Array;
  readonly U16: typeof Uint16Array;
  readonly U32: typeof Uint32Array;
  readonly U64: typeof BigUint64Array;
}

export const arrayOf: ArrayOf = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
  U16: Uint16Array,
  U32: Uint32Array,
  U64: BigUint64Array,
};

/** Bytes as elements, without a copy where they are aligned. */
export function dataView(dtype: SafetensorsDType, bytes: Uint8Array<ArrayBuffer>): SafetensorsData {
  const elementBytes = safetensorsDTypeBytes[dtype];
  const aligned = bytes.byteOffset % elementBytes === 0 ? bytes : new Uint8Array(bytes);
  return new arrayOf[dtype](aligned.buffer, aligned.byteOffset, aligned.byteLength / elementBytes);
}

/** Tensors of a file by name, read when they are asked for. */
export interface TensorFile extends AsyncDisposable {
  readonly path: string;
  readonly entries: ReadonlyMap<string, { readonly dtype: SafetensorsDType; readonly shape: readonly number[] }>;
  /** @throws MonosemError ERR_NOT_FOUND for an unknown name, ERR_FORMAT, ERR_OUT_OF_MEMORY, ERR_IO */
  read(name: string): Promise<SafetensorsArray>;
}

export function isFloatingPoint(dtype: SafetensorsDType): boolean {
  return ["F64", "F32", "F16", "BF16"].includes(dtype);
}

/** A floating-point tensor as f32: f16 and bf16 exactly, f64 rounded to nearest. */
export function toFloat32({ dtype, data }: SafetensorsArray): Float32Array {
  if (dtype === "F32") return data as Float32Array;
  if (dtype === "F16") return float32FromFloat16(data as Uint16Array);
  if (dtype === "BF16") return float32FromBFloat16(data as Uint16Array);
  return Float32Array.from(data as Float64Array);
}

/**
 * The elements of a strided tensor in row-major order.
 *
 * @param strides - in elements, one per dimension
 * @param offset - of the first element; every element lies within `data`, which the caller has checked
 */
export function rowMajor<Data extends SafetensorsData>(
  data: Data,
  shape: readonly number[],
  strides: readonly number[],
  offset = 0,
): Data {
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  if (isRowMajor(shape, strides)) return data.subarray(offset, offset + size) as Data;
  const result = new (data.constructor as new (length: number) => SafetensorsData)(size) as Data;
  const index = shape.map(() => 0);
  let source = offset;
  for (let i = 0; i < size; i++) {
    result[i] = data[source]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      source += strides[axis]!;
      index[axis]! += 1;
      if (index[axis]! < shape[axis]!) break;
      source -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return result;
}

/** Whether elements already lie one after the other; the stride of a dimension of 1 does not matter. */
function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== expected) return false;
    expected *= shape[axis]!;
  }
  return true;
}
