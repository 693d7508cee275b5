/**
 * PyTorch's files (`torch.save`, `.pt` and `.pth`) from strangers: a zip of `NAME/data.pkl`, a pickle of the saved value,
 * and `NAME/data/KEY`, the storages of its tensors (torch/serialization.py; caffe2/serialize/inline_container.h).
 *
 * The pickle is read by an inert reader (pickle.ts). What it may name is listed here: ordered dictionaries, storages, and
 * what makes a tensor of one. A tensor is a view of a storage, shape, strides and offset; it must lie within it and hold
 * no more elements than it.
 */
import { MonosemError } from "../errors.js";
import { type ByteSource, FileBytes } from "./fileBytes.js";
import {
  kindOf,
  maximumPickleBytes,
  PickleDict,
  PickleGlobal,
  PickleList,
  PickleObject,
  PickleTuple,
  type PickleValue,
  readPickle,
} from "./pickle.js";
import { checkedByteLength, quote, type SafetensorsDType, safetensorsDTypeBytes } from "./safetensorsHeader.js";
import { dataView, rowMajor, type SafetensorsArray } from "./tensorArray.js";
import { ZipArchive } from "./zip.js";

/** What a file holds: plain values, and tensors, which are read when they are asked for. */
export type TorchValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | TorchTensor
  | readonly TorchValue[]
  | ReadonlyMap<string | number, TorchValue>;

/** The elements of a storage, which several tensors may share. */
class Storage extends PickleObject {
  readonly kind = "a storage";
  readonly dtype: SafetensorsDType;
  /** Of its entry in the archive. */
  readonly entry: string;
  readonly elements: number;

  constructor(dtype: SafetensorsDType, entry: string, elements: number) {
    super();
    this.dtype = dtype;
    this.entry = entry;
    this.elements = elements;
  }
}

/** A tensor of a file. */
export class TorchTensor extends PickleObject {
  readonly kind = "a tensor";
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** In elements, one per dimension. */
  readonly strides: readonly number[];
  /** Of the first element in the storage. */
  readonly offset: number;
  /** Of the storage's entry in the archive; tensors of the same one share its elements. */
  readonly storage: string;

  constructor(storage: Storage, shape: readonly number[], strides: readonly number[], offset: number) {
    super();
    this.dtype = storage.dtype;
    this.storage = storage.entry;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
  }
}

const storageDTypes: Readonly<Record<string, SafetensorsDType>> = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

/** Of a tensor; those of weights have five at most. */
const maximumDimensions = 16;
/** Of the saved value, when everything that it refers to is written out. */
const maximumDepth = 32;
const maximumValues = 1_000_000;

/** What a file of PyTorch before 1.6 begins with: a pickle of the number 0x1950a86a20f9469cfc6c. */
const oldMagic = Buffer.from([0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]);

/** An open file, whose tensors are read when they are asked for. */
export class TorchArchive {
  readonly path: string;
  /** What was saved. */
  readonly value: TorchValue;
  readonly #archive: ZipArchive;

  private constructor(archive: ZipArchive, value: TorchValue) {
    this.path = archive.path;
    this.value = value;
    this.#archive = archive;
  }

  /**
   * Opens a file and reads the saved value, without the elements of its tensors.
   *
   * @throws MonosemError ERR_NOT_FOUND when there is no such file; ERR_FORMAT when it is malformed or truncated;
   *   ERR_UNSUPPORTED naming what it needs besides tensors and plain values, or why it is of a kind that is not read;
   *   ERR_IO
   */
  static async open(path: string): Promise<TorchArchive> {
    const bytes = await FileBytes.open(path);
    try {
      return await TorchArchive.from(bytes);
    } catch (error) {
      await bytes.close();
      throw error;
    }
  }

  /** As `open`, of bytes that are at hand. */
  static async from(source: ByteSource): Promise<TorchArchive> {
    const { path } = source;
    const start = await source.read(0, Math.min(oldMagic.length, source.byteLength));
    if (oldMagic.equals(start)) {
      throw unsupported(path, "it has the form of PyTorch before 1.6; load it in a newer one and save it again");
    }
    const archive = await ZipArchive.open(source);
    const names = [...archive.entries.keys()];
    const [pickleName, ...others] = names.filter((name) => /^[^/]+\/data\.pkl$/.test(name));
    if (pickleName === undefined || others.length > 0) {
      throw new MonosemError(
        "ERR_FORMAT",
        `${path} is no PyTorch file: it holds ${others.length === 0 ? "no" : "several"} data.pkl`,
      );
    }
    const folder = pickleName.slice(0, -"data.pkl".length);
    if (names.some((name) => name === `${folder}constants.pkl` || name.startsWith(`${folder}code/`))) {
      throw unsupported(path, "it is a TorchScript program; save the module's state_dict instead");
    }
    await checkByteOrder(archive, `${folder}byteorder`);
    if (archive.entry(pickleName).byteLength > maximumPickleBytes) {
      throw new MonosemError(
        "ERR_FORMAT",
        `${path}: ${quote(pickleName)} exceeds the limit of ${maximumPickleBytes} bytes`,
      );
    }
    const what = `${path}: ${quote(pickleName)}`;
    const vocabulary = { globals: globalsOf(what), persistent: storageOf(archive, folder, what) };
    const value = readPickle(await archive.read(pickleName), vocabulary, what);
    return new TorchArchive(archive, new PlainValues(what).of(value));
  }

  /**
   * The elements of a tensor of this file, in row-major order.
   *
   * @throws MonosemError ERR_FORMAT when the storage is damaged, ERR_OUT_OF_MEMORY, ERR_IO
   */
  async read({ dtype, shape, strides, offset, storage }: TorchTensor): Promise<SafetensorsArray> {
    const elements = dataView(dtype, await this.#archive.read(storage));
    return { dtype, shape, data: rowMajor(elements, shape, strides, offset) };
  }

  async close(): Promise<void> {
    await this.#archive.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Files before PyTorch 2.1 have no record of it, and are little-endian in practice. */
async function checkByteOrder(archive: ZipArchive, name: string): Promise<void> {
  const record = archive.entries.get(name);
  if (record === undefined) return;
  const order = record.byteLength <= 16 ? Buffer.from(await archive.read(name)).toString("latin1") : "too long";
  if (order !== "little") throw unsupported(archive.path, `its byte order is ${quote(order)}; only little can be read`);
}

/** What a pickle of tensors may name. */
function globalsOf(what: string): ReadonlyMap<string, PickleGlobal> {
  const tensorOf = (arguments_: readonly PickleValue[]) => rebuildTensor(arguments_, what);
  const globals = [
    new PickleGlobal("collections.OrderedDict", (arguments_) => orderedDict(arguments_, what)),
    new PickleGlobal("torch._utils._rebuild_tensor_v2", tensorOf),
    new PickleGlobal("torch._utils._rebuild_parameter", ([tensor]) => {
      if (tensor instanceof TorchTensor) return tensor;
      throw malformed(what, "a parameter in it is no tensor");
    }),
    new PickleGlobal("torch.Size", ([sizes]) => new PickleTuple(integersOf(sizes, what))),
    ...Object.keys(storageDTypes).map((name) => new PickleGlobal(`torch.${name}`)),
  ];
  return new Map(globals.map((global) => [global.name, global]));
}

/**
 * OrderedDict(), whose items follow: so Python 3 writes one. One made of a list would be a copy, and a pickle can ask for
 * any number of copies of one list.
 */
function orderedDict(arguments_: readonly PickleValue[], what: string): PickleDict {
  const [first] = arguments_;
  if (first !== undefined) throw malformed(what, `an ordered dictionary in it is made of ${kindOf(first)}`);
  return new PickleDict();
}

/** Storages are stored under an identifier ("storage", type, key, device, number of elements). */
function storageOf(archive: ZipArchive, folder: string, what: string): (identifier: PickleValue) => Storage {
  const dtypeOf = new Map(Object.entries(storageDTypes).map(([name, dtype]) => [`torch.${name}`, dtype]));
  return (identifier) => {
    const [tag, type, key, , elements] = identifier instanceof PickleTuple ? identifier.items : [];
    const dtype = type instanceof PickleGlobal ? dtypeOf.get(type.name) : undefined;
    if (tag !== "storage" || dtype === undefined || typeof key !== "string" || !isNatural(elements)) {
      throw malformed(what, "the identifier of a storage in it is none");
    }
    const name = `${folder}data/${key}`;
    const entry = archive.entries.get(name);
    const byteLength = elements * safetensorsDTypeBytes[dtype];
    if (entry?.byteLength !== byteLength) {
      throw malformed(
        what,
        `its storage ${quote(key)} of ${elements} elements of ${dtype} takes ${byteLength} bytes, but ${quote(name)} ` +
          (entry === undefined ? "is missing" : `has ${entry.byteLength}`),
      );
    }
    return new Storage(dtype, name, elements);
  };
}

/** _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks, metadata) */
function rebuildTensor(arguments_: readonly PickleValue[], what: string): TorchTensor {
  const [storage, offset, size, stride] = arguments_;
  if (!(storage instanceof Storage)) throw malformed(what, "a tensor in it has no storage");
  const shape = integersOf(size, what);
  const strides = integersOf(stride, what);
  if (!isNatural(offset) || strides.length !== shape.length) {
    throw malformed(what, "the shape, strides or offset of a tensor in it are none");
  }
  const elements = shape.reduce((product, dimension) => product * dimension, 1);
  const last = shape.reduce((sum, dimension, axis) => sum + (dimension - 1) * strides[axis]!, offset);
  const fits = elements === 0 ? offset <= storage.elements : last < storage.elements;
  if (checkedByteLength(shape, storage.dtype) === undefined || !fits) {
    throw malformed(
      what,
      `a tensor of shape [${shape.join(", ")}] and strides [${strides.join(", ")}] from ${offset} does not lie within its ` +
        `storage of ${storage.elements} elements`,
    );
  }
  if (elements > storage.elements) {
    throw unsupported(
      what,
      `a tensor of shape [${shape.join(", ")}] repeats the ${storage.elements} elements of its storage`,
    );
  }
  return new TorchTensor(storage, shape, strides, offset);
}

/** Looks at few items: a pickle can name the same tuple any number of times. */
function integersOf(value: PickleValue | undefined, what: string): readonly number[] {
  const items = value instanceof PickleTuple || value instanceof PickleList ? value.items : undefined;
  if (items !== undefined && items.length > maximumDimensions) {
    throw malformed(what, `a shape in it has ${items.length} dimensions, more than ${maximumDimensions}`);
  }
  if (items === undefined || !items.every(isNatural)) throw malformed(what, "a shape in it is no tuple of integers");
  return items;
}

function isNatural(value: PickleValue | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/**
 * The saved value with everything that it refers to written out, so that it is a tree: what refers to itself, or doubles
 * with every level, exceeds a limit.
 */
class PlainValues {
  readonly #what: string;
  #count = 0;

  constructor(what: string) {
    this.#what = what;
  }

  of(value: PickleValue, depth = 0): TorchValue {
    this.#count += 1;
    if (depth > maximumDepth || this.#count > maximumValues) {
      throw malformed(
        this.#what,
        `its value is nested more than ${maximumDepth} times or has over ${maximumValues} parts`,
      );
    }
    if (value instanceof PickleDict) {
      return new Map([...value.entries].map(([key, item]) => [key, this.of(item, depth + 1)]));
    }
    if (value instanceof PickleList || value instanceof PickleTuple) {
      return value.items.map((item) => this.of(item, depth + 1));
    }
    if (value instanceof TorchTensor) return value;
    if (value instanceof PickleGlobal || value instanceof PickleObject) {
      throw malformed(this.#what, `it holds ${kindOf(value)} outside of a tensor`);
    }
    return value;
  }
}

function malformed(what: string, reason: string): MonosemError {
  return new MonosemError("ERR_FORMAT", `${what} is not a valid PyTorch file: ${reason}`);
}

function unsupported(what: string, reason: string): MonosemError {
  return new MonosemError("ERR_UNSUPPORTED", `${what} is not read: ${reason}`);
}
