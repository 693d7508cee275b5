/** Numbers as reports show them. */
import { decimal } from "../analysis/featureReport.js";

const integerFormat = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const percentFormat = new Intl.NumberFormat("en-US", { style: "percent", maximumSignificantDigits: 3 });

export function integer(value: number): string {
  return integerFormat.format(value);
}

export function percent(share: number): string {
  return percentFormat.format(share);
}

export function signed(value: number): string {
  return value > 0 ? `+${decimal(value)}` : decimal(value);
}
