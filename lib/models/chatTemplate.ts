/** Chat templates: programs in Jinja with which a model's makers say how it was trained to see conversations. */
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { MonosemError } from "../errors.js";
import { readBounded } from "../formats/boundedFile.js";
import { BoundedInterpreter } from "./boundedInterpreter.js";

/** One turn of a conversation. */
export interface ChatMessage {
  /** As a rule "system", "user" or "assistant". */
  readonly role: string;
  readonly content: string;
}

/** Of a template; the longest of real ones, with tools and pictures, have some 30,000. */
const maximumLength = 1_000_000;

export class ChatTemplate {
  readonly #template: Template;
  readonly #path: string;
  /** `bos_token` and the like, which templates write. */
  readonly #specialTokens: Readonly<Record<string, string>>;

  private constructor(source: string, path: string, specialTokens: Readonly<Record<string, string>>) {
    this.#path = path;
    this.#specialTokens = specialTokens;
    if (source.length > maximumLength) {
      throw new MonosemError("ERR_FORMAT", `${path}: the chat template has more than ${maximumLength} characters`);
    }
    try {
      this.#template = new Template(source);
    } catch (error) {
      throw new MonosemError("ERR_FORMAT", `${path}: the chat template is malformed: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /**
   * The template in chat_template.jinja of a folder, else that of its tokenizer_config.json (of several the one named
   * "default"); undefined where there is none.
   *
   * @throws MonosemError ERR_FORMAT for a malformed template, ERR_IO
   */
  static async load(directory: string, config: Readonly<Record<string, unknown>>): Promise<ChatTemplate | undefined> {
    const tokens = Object.entries(config).filter(([key]) => /^[a-z]+_token$/.test(key));
    const named = tokens.map(([key, entry]) => [key, contentOf(entry)] as const);
    const specialTokens = Object.fromEntries(named.filter((pair): pair is [string, string] => pair[1] !== undefined));
    const ownPath = join(directory, "chat_template.jinja");
    const own = await ownTemplate(ownPath);
    if (own !== undefined) return new ChatTemplate(own, ownPath, specialTokens);
    const source = sourceIn(config.chat_template);
    const path = join(directory, "tokenizer_config.json");
    return source === undefined ? undefined : new ChatTemplate(source, path, specialTokens);
  }

  /** @throws MonosemError ERR_INVALID_ARGUMENT when the template refuses the conversation, or its work has no end */
  render(messages: readonly ChatMessage[], addGenerationPrompt: boolean): string {
    try {
      const interpreter = new BoundedInterpreter({
        ...this.#specialTokens,
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: addGenerationPrompt,
      });
      return String(interpreter.run(this.#template.parsed).value);
    } catch (error) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `the chat template of ${this.#path} refuses this conversation: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }
}

async function ownTemplate(path: string): Promise<string | undefined> {
  let bytes: Buffer | undefined;
  try {
    bytes = await readBounded(path, 4 * maximumLength);
  } catch (error) {
    if (error instanceof MonosemError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new MonosemError("ERR_IO", `${path} cannot be read: ${message}`, { cause: error });
  }
  if (bytes !== undefined) return bytes.toString("utf8");
  throw new MonosemError("ERR_FORMAT", `${path}: the chat template has more than ${maximumLength} characters`);
}

function sourceIn(entry: unknown): string | undefined {
  if (typeof entry === "string") return entry;
  if (!Array.isArray(entry)) return undefined;
  const isDefault = (one: unknown): boolean =>
    typeof one === "object" && one !== null && "name" in one && one.name === "default";
  const template = (entry.find(isDefault) as { template?: unknown } | undefined)?.template;
  return typeof template === "string" ? template : undefined;
}

/** The token that an entry of tokenizer_config.json names, as a string or as an added token's description. */
export function contentOf(entry: unknown): string | undefined {
  if (typeof entry === "string") return entry;
  if (typeof entry === "object" && entry !== null && "content" in entry && typeof entry.content === "string") {
    return entry.content;
  }
  return undefined;
}
