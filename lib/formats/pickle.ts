/**
 * An inert reader of pickles: it builds numbers, text, lists, tuples, dictionaries, and what its vocabulary knows how to
 * build, and nothing else.
 *
 * A pickle is a program for a stack machine (CPython's Lib/pickletools.py describes it), and Python's own reader imports
 * and calls whatever the program names. Here a name is looked up in an allow-list the moment it appears; any other ends
 * the reading with an error that says it. There is no opcode to make instances, import modules or run anything. Opcodes
 * that PyTorch never writes are refused. Every limit is checked before memory is taken.
 */
import { MonosemError } from "../errors.js";
import { quote } from "./safetensorsHeader.js";

/** What stands on the stack. Lists and dictionaries may contain themselves: whoever walks them must count. */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | PickleList
  | PickleTuple
  | PickleDict
  | PickleGlobal
  | PickleObject;

export class PickleList {
  readonly items: PickleValue[] = [];
}

export class PickleTuple {
  readonly items: readonly PickleValue[];

  constructor(items: readonly PickleValue[]) {
    this.items = items;
  }
}

/** Keys are text or integers. */
export class PickleDict {
  readonly entries: Map<string | number, PickleValue> = new Map();
}

/** What a vocabulary made. */
export abstract class PickleObject {
  /** Of the kind of object, for messages. */
  abstract readonly kind: string;
}

/** An allowed name. */
export class PickleGlobal {
  /** "module.name" */
  readonly name: string;
  /** What the name stands for when it is called; undefined where it must not be. */
  readonly build: ((arguments_: readonly PickleValue[]) => PickleValue) | undefined;

  constructor(name: string, build?: (arguments_: readonly PickleValue[]) => PickleValue) {
    this.name = name;
    this.build = build;
  }
}

/** The names that may appear, by "module.name", and what persistent identifiers stand for. */
export interface PickleVocabulary {
  readonly globals: ReadonlyMap<string, PickleGlobal>;
  /** @throws MonosemError ERR_FORMAT */
  persistent(identifier: PickleValue): PickleValue;
}

/** Longest pickle, in bytes; the tensors of a PyTorch archive are outside of it. */
export const maximumPickleBytes = 16_777_216;
const maximumOpcodes = 2_000_000;
const maximumStack = 100_000;
const maximumMarks = 100;
const maximumMemo = 500_000;
const maximumTextBytes = 2 ** 20;
const maximumIntegerBytes = 8;

/**
 * Reads a pickle of protocol 2 to 5.
 *
 * @param what - the file's name, for messages
 * @throws MonosemError ERR_UNSUPPORTED naming what is not in the vocabulary; ERR_FORMAT when the pickle is malformed or
 *   exceeds a limit
 */
export function readPickle(bytes: Uint8Array, vocabulary: PickleVocabulary, what: string): PickleValue {
  return new PickleMachine(bytes, vocabulary, what).run();
}

class PickleMachine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #vocabulary: PickleVocabulary;
  readonly #what: string;
  readonly #stack: PickleValue[] = [];
  /** Heights of the stack. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue>();
  #position = 0;

  constructor(bytes: Uint8Array, vocabulary: PickleVocabulary, what: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#vocabulary = vocabulary;
    this.#what = what;
  }

  run(): PickleValue {
    if (this.#bytes.length > maximumPickleBytes) {
      throw this.#malformed(`its ${this.#bytes.length} bytes exceed the limit of ${maximumPickleBytes}`);
    }
    for (let count = 0; count < maximumOpcodes; count++) {
      const opcode = this.#uint8();
      if (opcode === 0x2e /* STOP */) {
        const result = this.#pop();
        const { length } = this.#stack;
        if (length > 0 || this.#marks.length > 0) throw this.#malformed(`${length} values remain on its stack`);
        if (this.#position < this.#bytes.length) throw this.#malformed("more bytes follow its end");
        return result;
      }
      this.#execute(opcode);
    }
    throw this.#malformed(`it has more than ${maximumOpcodes} instructions`);
  }

  #execute(opcode: number): void {
    switch (opcode) {
      case 0x80: // PROTO
        this.#protocol();
        break;
      case 0x95: // FRAME: how much to read ahead
        this.#skip(8);
        break;

      case 0x4e: // NONE
        this.#push(null);
        break;
      case 0x88: // NEWTRUE
        this.#push(true);
        break;
      case 0x89: // NEWFALSE
        this.#push(false);
        break;
      case 0x4a: // BININT
        this.#push(this.#view.getInt32(this.#skip(4), true));
        break;
      case 0x4b: // BININT1
        this.#push(this.#uint8());
        break;
      case 0x4d: // BININT2
        this.#push(this.#view.getUint16(this.#skip(2), true));
        break;
      case 0x8a: // LONG1
        this.#push(this.#integer(this.#uint8()));
        break;
      case 0x47: // BINFLOAT
        this.#push(this.#view.getFloat64(this.#skip(8)));
        break;
      case 0x58: // BINUNICODE
        this.#push(this.#text(this.#view.getUint32(this.#skip(4), true)));
        break;
      case 0x8c: // SHORT_BINUNICODE
        this.#push(this.#text(this.#uint8()));
        break;

      case 0x28: // MARK
        if (this.#marks.length >= maximumMarks) throw this.#malformed(`it is nested ${maximumMarks} times`);
        this.#marks.push(this.#stack.length);
        break;
      case 0x30: // POP
        this.#pop();
        break;
      case 0x5d: // EMPTY_LIST
        this.#push(new PickleList());
        break;
      case 0x29: // EMPTY_TUPLE
        this.#push(new PickleTuple([]));
        break;
      case 0x7d: // EMPTY_DICT
        this.#push(new PickleDict());
        break;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        this.#push(new PickleTuple(this.#popSeveral(opcode - 0x84)));
        break;
      case 0x74: // TUPLE
        this.#push(new PickleTuple(this.#popToMark()));
        break;
      case 0x61: // APPEND
        this.#append(this.#popSeveral(1));
        break;
      case 0x65: // APPENDS
        this.#append(this.#popToMark());
        break;
      case 0x73: // SETITEM
        this.#setItems(this.#popSeveral(2));
        break;
      case 0x75: // SETITEMS
        this.#setItems(this.#popToMark());
        break;

      case 0x71: // BINPUT
        this.#memoize(this.#uint8());
        break;
      case 0x72: // LONG_BINPUT
        this.#memoize(this.#view.getUint32(this.#skip(4), true));
        break;
      case 0x94: // MEMOIZE
        this.#memoize(this.#memo.size);
        break;
      case 0x68: // BINGET
        this.#recall(this.#uint8());
        break;
      case 0x6a: // LONG_BINGET
        this.#recall(this.#view.getUint32(this.#skip(4), true));
        break;

      case 0x63: // GLOBAL
        this.#global(this.#line(), this.#line());
        break;
      case 0x93: // STACK_GLOBAL
        this.#stackGlobal();
        break;
      case 0x52: // REDUCE
        this.#reduce();
        break;
      case 0x62: // BUILD
        this.#build();
        break;
      case 0x51: // BINPERSID
        this.#push(this.#vocabulary.persistent(this.#pop()));
        break;

      case 0x69: // INST
        throw this.#refuse(`${this.#line()}.${this.#line()}`);
      case 0x6f: // OBJ
      case 0x81: // NEWOBJ
      case 0x92: // NEWOBJ_EX
        throw this.#unsupported("it makes an instance of a class");
      default:
        throw this.#unsupported(`it has the instruction 0x${opcode.toString(16).padStart(2, "0")}`);
    }
  }

  #protocol(): void {
    const protocol = this.#uint8();
    if (protocol < 2 || protocol > 5) throw this.#unsupported(`its protocol is ${protocol}; 2 to 5 can be read`);
  }

  #global(module: string, name: string): void {
    const global = this.#vocabulary.globals.get(`${module}.${name}`);
    if (global === undefined) throw this.#refuse(`${module}.${name}`);
    this.#push(global);
  }

  #stackGlobal(): void {
    const [module, name] = this.#popSeveral(2);
    if (typeof module !== "string" || typeof name !== "string") throw this.#malformed("a name in it is no text");
    this.#global(module, name);
  }

  #reduce(): void {
    const [callable, arguments_] = this.#popSeveral(2);
    if (!(callable instanceof PickleGlobal) || callable.build === undefined) {
      throw this.#malformed(`it calls ${callable instanceof PickleGlobal ? callable.name : kindOf(callable!)}`);
    }
    if (!(arguments_ instanceof PickleTuple)) throw this.#malformed(`it calls ${callable.name} without arguments`);
    this.#push(callable.build(arguments_.items));
  }

  /** State of an object. That of a state dictionary says which versions of modules wrote it, and has no use here. */
  #build(): void {
    const state = this.#pop();
    const target = this.#stack.at(-1);
    if (!(target instanceof PickleDict) || !(state instanceof PickleDict)) {
      throw this.#unsupported(`it sets the state of ${target === undefined ? "nothing" : kindOf(target)}`);
    }
  }

  #append(items: readonly PickleValue[]): void {
    const list = this.#stack.at(-1);
    if (!(list instanceof PickleList)) throw this.#malformed("it appends to what is no list");
    for (const item of items) list.items.push(item);
  }

  #setItems(items: readonly PickleValue[]): void {
    const dict = this.#stack.at(-1);
    if (!(dict instanceof PickleDict)) throw this.#malformed("it sets items of what is no dictionary");
    if (items.length % 2 !== 0) throw this.#malformed("a key in it has no value");
    for (let i = 0; i < items.length; i += 2) setItem(dict, items[i]!, items[i + 1]!, this.#what);
  }

  #memoize(index: number): void {
    const value = this.#stack.at(-1);
    if (value === undefined || this.#stack.length <= (this.#marks.at(-1) ?? 0))
      throw this.#malformed("its stack is empty");
    if (this.#memo.size >= maximumMemo) throw this.#malformed(`it remembers more than ${maximumMemo} values`);
    this.#memo.set(index, value);
  }

  #recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) throw this.#malformed(`it recalls the value ${index}, which it does not have`);
    this.#push(value);
  }

  #push(value: PickleValue): void {
    if (this.#stack.length >= maximumStack) throw this.#malformed(`its stack exceeds ${maximumStack} values`);
    this.#stack.push(value);
  }

  #pop(): PickleValue {
    return this.#popSeveral(1)[0]!;
  }

  #popSeveral(count: number): PickleValue[] {
    if (this.#stack.length - count < (this.#marks.at(-1) ?? 0)) throw this.#malformed("its stack is empty");
    return this.#stack.splice(this.#stack.length - count);
  }

  #popToMark(): PickleValue[] {
    const height = this.#marks.pop();
    if (height === undefined) throw this.#malformed("a mark is missing in it");
    return this.#stack.splice(height);
  }

  /** Two's complement, little-endian. */
  #integer(byteLength: number): number | bigint {
    if (byteLength > maximumIntegerBytes) throw this.#malformed(`an integer in it has ${byteLength} bytes`);
    const begin = this.#skip(byteLength);
    let value = 0n;
    for (let i = byteLength - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[begin + i]!);
    value = BigInt.asIntN(8 * byteLength, value);
    return BigInt.asIntN(53, value) === value ? Number(value) : value;
  }

  #text(byteLength: number): string {
    if (byteLength > maximumTextBytes) throw this.#malformed(`a text in it has ${byteLength} bytes`);
    const begin = this.#skip(byteLength);
    return this.#decode(begin, begin + byteLength);
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#position);
    if (end < 0 || end - this.#position > maximumTextBytes) throw this.#malformed("a line in it does not end");
    const begin = this.#skip(end + 1 - this.#position);
    return this.#decode(begin, end);
  }

  #decode(begin: number, end: number): string {
    try {
      return utf8.decode(this.#bytes.subarray(begin, end));
    } catch {
      throw this.#malformed("a text in it is not UTF-8");
    }
  }

  #uint8(): number {
    return this.#bytes[this.#skip(1)]!;
  }

  /** Where the next bytes begin. */
  #skip(byteLength: number): number {
    const begin = this.#position;
    if (begin + byteLength > this.#bytes.length) throw this.#malformed("it is truncated");
    this.#position = begin + byteLength;
    return begin;
  }

  #refuse(name: string): MonosemError {
    return this.#unsupported(`it needs ${quote(name)}`);
  }

  #unsupported(reason: string): MonosemError {
    return new MonosemError(
      "ERR_UNSUPPORTED",
      `${this.#what} is not read: ${reason}. Tensors, numbers, text, lists and dictionaries are read and nothing is run; ` +
        "save a state_dict of such in Python, or better a safetensors file",
    );
  }

  #malformed(reason: string): MonosemError {
    return new MonosemError("ERR_FORMAT", `${this.#what} is not a valid pickle: ${reason}`);
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @throws MonosemError ERR_FORMAT for a key that is neither text nor an integer, or stands twice */
function setItem(dict: PickleDict, key: PickleValue, value: PickleValue, what: string): void {
  if (typeof key !== "string" && !Number.isSafeInteger(key)) {
    throw new MonosemError("ERR_FORMAT", `${what} is not a valid pickle: a key in it is ${kindOf(key)}`);
  }
  if (dict.entries.has(key as string | number)) {
    throw new MonosemError("ERR_FORMAT", `${what} is not a valid pickle: the key ${quote(String(key))} stands twice`);
  }
  dict.entries.set(key as string | number, value);
}

/** For messages. */
export function kindOf(value: PickleValue): string {
  if (value instanceof PickleList) return "a list";
  if (value instanceof PickleTuple) return "a tuple";
  if (value instanceof PickleDict) return "a dictionary";
  if (value instanceof PickleGlobal) return value.name;
  if (value instanceof PickleObject) return value.kind;
  return value === null ? "None" : `a ${typeof value}`;
}
