import { expect, test } from "vitest";
import { bfloat16FromFloat32, float32FromBFloat16, float32FromFloat16 } from "../../lib/formats/halfPrecision.js";

const everyBitPattern = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

test("every f16 widens to the value that its bits mean", () => {
  const wide = float32FromFloat16(everyBitPattern);
  for (const bits of everyBitPattern) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const mantissa = bits & 1023;
    const finite = exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25);
    const expected = exponent < 31 ? finite : mantissa === 0 ? sign * Infinity : Number.NaN;
    if (!Object.is(wide[bits], expected)) expect.fail(`bits ${bits} became ${wide[bits]}, not ${expected}`);
  }
});

test("every bf16 survives widening and rounding back", () => {
  const wide = float32FromBFloat16(everyBitPattern);
  const back = bfloat16FromFloat32(wide);
  for (const bits of everyBitPattern) {
    if (Number.isNaN(wide[bits]!)) expect(float32FromBFloat16(back.subarray(bits, bits + 1))[0]).toBeNaN();
    else if (back[bits] !== bits) expect.fail(`bits ${bits} became ${back[bits]}`);
  }
});

test("rounding to bf16 goes to the nearest, ties to even, and overflows to infinity", () => {
  const step = 2 ** -7;
  const rounded = (value: number) => float32FromBFloat16(bfloat16FromFloat32(Float32Array.of(value)))[0];
  expect(rounded(1 + 0.5 * step)).toBe(1);
  expect(rounded(1 + 1.5 * step)).toBe(1 + 2 * step);
  expect(rounded(1 + 0.51 * step)).toBe(1 + step);
  expect(rounded(-1 - 0.49 * step)).toBe(-1);
  expect(rounded(3.4028235e38)).toBe(Infinity);
  expect(rounded(-Infinity)).toBe(-Infinity);
  expect(rounded(-0)).toBe(-0);
});
