import { readFileSync } from "node:fs";
import { Ajv } from "ajv";

const read = (name: string) =>
  JSON.parse(readFileSync(new URL(`../fixtures/saebench/${name}.json`, import.meta.url), "utf8"));

/** What SAEBench's own functions answer: see make_saebench.py. */
export const saeBench: {
  readonly absorption: {
    readonly probe: number[];
    readonly decoder: number[][];
    readonly acts: number[][];
    readonly activations: number[][];
    readonly mainLatents: number[];
    readonly fraction: number[];
    readonly full: boolean[];
  };
  readonly splits: { readonly f1: number[]; readonly latents: number }[];
  readonly mainLatents: {
    readonly letters: number[];
    readonly acts: number[][];
    readonly probes: Record<string, number[]>;
    readonly chosen: Record<string, Record<string, number[]>>;
  };
  readonly weightedProbes: {
    readonly x: number[][];
    readonly y: number[];
    readonly balanced: { readonly weights: number[]; readonly bias: number };
    readonly sparse: { readonly penalty: number; readonly weights: number[]; readonly bias: number }[];
  };
  readonly sparseProbing: {
    readonly x: number[][];
    readonly y: number[];
    readonly trainRows: number;
    readonly top: Record<string, { readonly features: number[]; readonly accuracy: number }>;
  };
} = read("saebench");

export const schemas: Record<string, object> = read("schemas").schemas;

/** What the schema of SAEBench has against a result that has been a file. */
export function problems(name: string, result: object): unknown {
  const validate = new Ajv({ strict: false, allErrors: true }).compile(schemas[name]!);
  validate(JSON.parse(JSON.stringify(result)));
  return validate.errors;
}
