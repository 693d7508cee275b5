import { TransformerKernels } from "./transformerKernels.js";

/** The part of {@link Kernels} that computes with the entries of codes. */
export abstract class EntryKernels extends TransformerKernels {}
