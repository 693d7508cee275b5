/** What an explanation is made from and tested on: windows of documents with one latent's activations. */

/** Consecutive tokens of one document. */
export interface Window {
  /** Index of the document in the corpus. */
  readonly document: number;
  /** Index of the first token in the document. */
  readonly start: number;
  readonly tokens: Int32Array;
}

export interface Example extends Window {
  /** The latent's activation on each of `tokens`; 0 where it does not fire or the token does not count. */
  readonly activations: Float32Array;
  /** The largest of them; 0 in a silent window. */
  readonly peak: number;
}

/** What a pass over one half of the documents keeps of a latent. A window is active where the latent is positive in it. */
export interface ExampleSide {
  /** How many windows are active. */
  readonly activeWindows: number;
  /** The windows with the largest peaks, largest first, no two with the same tokens. */
  readonly strongest: readonly Example[];
  /** A uniform sample of the active windows, largest peak first. */
  readonly active: readonly Example[];
  /** A uniform sample, in random order, of the windows in which the latent does not fire at all. */
  readonly silent: readonly Example[];
}

/** One latent's examples. No document, and no window's text, is on both sides. */
export interface LatentExamples {
  readonly latent: number;
  /** To make an explanation from. */
  readonly train: ExampleSide;
  /** To test it on. */
  readonly test: ExampleSide;
}
