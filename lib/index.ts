export { Codes, type CodesContent, EntryValues, FeatureSet } from "./engine/codes.js";
export { Device, type DeviceName, type DeviceOptions, type MemoryUse } from "./engine/device.js";
export {
  type Activation,
  type AdamStep,
  type AttentionOperands,
  type Clip,
  type EntryTerm,
  Kernels,
  type Moments,
  type RowGradient,
  type Sampling,
  type Selection,
} from "./engine/kernels.js";
export { RandomGenerator } from "./engine/random.js";
export { type DType, Tensor, type TypedArray } from "./engine/tensor.js";
export { type ErrorCode, MonosemError } from "./errors.js";
