/** Writes zip archives, right or wrong. */
import { crc32, deflateRawSync } from "node:zlib";

/** One file of an archive. */
export interface Member {
  readonly name: string;
  readonly content: Uint8Array;
  readonly method?: number;
  readonly flags?: number;
  /** What the directory says, where it is not the truth. */
  readonly claims?: Partial<Record<"byteLength" | "storedBytes" | "position" | "crc32", number>>;
  readonly localName?: string;
}

/** An archive of these members, and of what is to be wrong with it. */
export function zip(
  members: readonly Member[],
  wrong: { comment?: string; count?: number; directoryPosition?: number; zip64?: boolean; prefix?: number } = {},
): Buffer {
  const pieces: Buffer[] = [Buffer.alloc(wrong.prefix ?? 0)];
  const directory: Buffer[] = [];
  const length = () => pieces.reduce((sum, piece) => sum + piece.length, 0);
  for (const { name, content, method = 0, flags = 0, claims = {}, localName = name } of members) {
    const position = length();
    const stored = method === 8 ? deflateRawSync(content) : Buffer.from(content);
    const sizes = {
      byteLength: content.length,
      storedBytes: stored.length,
      position,
      crc32: crc32(content),
      ...claims,
    };
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50);
    local.writeUInt16LE(method, 8);
    local.writeUInt16LE(Buffer.byteLength(localName), 26);
    pieces.push(local, Buffer.from(localName), stored);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50);
    entry.writeUInt16LE(flags, 8);
    entry.writeUInt16LE(method, 10);
    entry.writeUInt32LE(sizes.crc32, 16);
    entry.writeUInt32LE(wrong.zip64 ? 0xffffffff : sizes.storedBytes, 20);
    entry.writeUInt32LE(wrong.zip64 ? 0xffffffff : sizes.byteLength, 24);
    entry.writeUInt16LE(Buffer.byteLength(name), 28);
    entry.writeUInt32LE(wrong.zip64 ? 0xffffffff : sizes.position, 42);
    const extra = Buffer.alloc(wrong.zip64 ? 28 : 0);
    if (wrong.zip64) {
      extra.writeUInt16LE(1);
      extra.writeUInt16LE(24, 2);
      for (const [i, size] of [sizes.byteLength, sizes.storedBytes, sizes.position].entries()) {
        extra.writeBigUInt64LE(BigInt(size), 4 + 8 * i);
      }
    }
    entry.writeUInt16LE(extra.length, 30);
    directory.push(entry, Buffer.from(name), extra);
  }
  const directoryBytes = Buffer.concat(directory);
  const position = wrong.directoryPosition ?? length();
  const count = wrong.count ?? members.length;
  pieces.push(directoryBytes);
  if (wrong.zip64) {
    const end64 = Buffer.alloc(56 + 20);
    end64.writeUInt32LE(0x06064b50);
    end64.writeBigUInt64LE(44n, 4);
    end64.writeBigUInt64LE(BigInt(count), 24);
    end64.writeBigUInt64LE(BigInt(count), 32);
    end64.writeBigUInt64LE(BigInt(directoryBytes.length), 40);
    end64.writeBigUInt64LE(BigInt(position), 48);
    end64.writeUInt32LE(0x07064b50, 56);
    end64.writeBigUInt64LE(BigInt(length()), 56 + 8);
    end64.writeUInt32LE(1, 56 + 16);
    pieces.push(end64);
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50);
  end.writeUInt16LE(wrong.zip64 ? 0xffff : count, 8);
  end.writeUInt16LE(wrong.zip64 ? 0xffff : count, 10);
  end.writeUInt32LE(wrong.zip64 ? 0xffffffff : directoryBytes.length, 12);
  end.writeUInt32LE(wrong.zip64 ? 0xffffffff : position, 16);
  end.writeUInt16LE(wrong.comment?.length ?? 0, 20);
  return Buffer.concat([...pieces, end, Buffer.from(wrong.comment ?? "", "latin1")]);
}
