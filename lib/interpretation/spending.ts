import { MonosemError } from "../errors.js";
import type { Usage } from "./chatRequest.js";

/** In any currency: the same as that of `maxCost`. */
export interface Prices {
  /** Of a million tokens of requests. */
  readonly input: number;
  /** Of a million tokens of answers. */
  readonly output: number;
}

export interface SpendingLimits {
  /** Most tokens, of requests and answers together. */
  readonly maxTokens?: number | undefined;
  /** Most money; needs `prices`. */
  readonly maxCost?: number | undefined;
  readonly prices?: Prices | undefined;
}

/** What a request may cost, set aside until it is known what it did. */
export interface Reservation {
  /** Ends the reservation. @param usage what was, or may have been, paid */
  settle(usage: Usage): void;
}

/**
 * Counts what is paid, and never lets requests begin that could together exceed the limits: each sets aside the most it
 * can cost before it is sent.
 */
export class Spending {
  readonly #limits: SpendingLimits;
  readonly #paid = { inputTokens: 0, outputTokens: 0 };
  readonly #reserved = { inputTokens: 0, outputTokens: 0 };
  #underWay = 0;
  #waiting: (() => void)[] = [];

  /** @throws MonosemError ERR_INVALID_ARGUMENT for numbers that are no amounts, ERR_CONFIG for `maxCost` without prices */
  constructor(limits: SpendingLimits) {
    const { maxTokens, maxCost, prices } = limits;
    const amounts = { maxTokens, maxCost, "prices.input": prices?.input, "prices.output": prices?.output };
    for (const [name, amount] of Object.entries(amounts)) {
      if (amount === undefined || (Number.isFinite(amount) && amount >= 0)) continue;
      throw new MonosemError("ERR_INVALID_ARGUMENT", `${name} must be a number of at least 0, found ${amount}`);
    }
    if (maxCost !== undefined && prices === undefined) {
      throw new MonosemError("ERR_CONFIG", "a cap on the cost needs the prices of a million tokens");
    }
    this.#limits = limits;
  }

  /** What was paid; of requests that broke off, the most they can have cost. */
  get paid(): Usage {
    return { ...this.#paid };
  }

  /** What was paid, in the currency of the prices; undefined without prices. */
  get cost(): number | undefined {
    return this.#costOf(this.#paid);
  }

  /**
   * Sets aside what a request may cost; waits while only what others have set aside is in the way.
   *
   * @throws MonosemError ERR_BUDGET when there is no room for it
   */
  async reserve(greatest: Usage): Promise<Reservation> {
    while (!this.#fits(greatest)) {
      if (this.#underWay === 0) throw this.#exhausted(greatest);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#underWay += 1;
    add(this.#reserved, greatest, 1);
    return {
      settle: (usage) => {
        this.#underWay -= 1;
        add(this.#reserved, greatest, -1);
        add(this.#paid, usage, 1);
        const waiting = this.#waiting;
        this.#waiting = [];
        for (const resume of waiting) resume();
      },
    };
  }

  #fits(greatest: Usage): boolean {
    const total = { ...this.#paid };
    add(total, this.#reserved, 1);
    add(total, greatest, 1);
    const { maxTokens = Number.POSITIVE_INFINITY, maxCost = Number.POSITIVE_INFINITY } = this.#limits;
    return total.inputTokens + total.outputTokens <= maxTokens && (this.#costOf(total) ?? 0) <= maxCost;
  }

  #costOf({ inputTokens, outputTokens }: Usage): number | undefined {
    const { prices } = this.#limits;
    return prices && (inputTokens * prices.input + outputTokens * prices.output) / 1e6;
  }

  #exhausted(next: Usage): MonosemError {
    const { maxTokens, maxCost } = this.#limits;
    const { inputTokens, outputTokens } = this.#paid;
    const caps = [
      ...(maxTokens === undefined ? [] : [`${inputTokens + outputTokens} of ${maxTokens} tokens`]),
      ...(maxCost === undefined ? [] : [`${this.cost!.toFixed(4)} of ${maxCost}`]),
    ];
    const tokens = `${next.inputTokens + next.outputTokens} tokens (${next.inputTokens} of its text, ${next.outputTokens} of its answer)`;
    const cost = maxCost === undefined ? "" : `, ${this.#costOf(next)!.toFixed(4)} in money`;
    return new MonosemError(
      "ERR_BUDGET",
      `${caps.join(" and ")} are spent, and the next request may cost up to ${tokens}${cost}: the cap must have room for it`,
    );
  }
}

function add(sum: { inputTokens: number; outputTokens: number }, usage: Usage, sign: 1 | -1): void {
  sum.inputTokens += sign * usage.inputTokens;
  sum.outputTokens += sign * usage.outputTokens;
}
