/** Chat templates: programs in Jinja with which a model's makers say how it was trained to see conversations. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { MonosemError } from "../errors.js";

/** One turn of a conversation. */
export interface ChatMessage {
  /** As a rule "system", "user" or "assistant". */
  readonly role: string;
  readonly content: string;
}

export class ChatTemplate {
  readonly #template: Template;
  readonly #path: string;
  /** `bos_token` and the like, which templates write. */
  readonly #specialTokens: Readonly<Record<string, string>>;

  private constructor(source: string, path: string, specialTokens: Readonly<Record<string, string>>) {
    this.#path = path;
    this.#specialTokens = specialTokens;
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
    const own = await readFile(ownPath, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw new MonosemError("ERR_IO", `${ownPath} cannot be read: ${error.message}`, { cause: error });
    });
    if (own !== undefined) return new ChatTemplate(own, ownPath, specialTokens);
    const source = sourceIn(config.chat_template);
    const path = join(directory, "tokenizer_config.json");
    return source === undefined ? undefined : new ChatTemplate(source, path, specialTokens);
  }

  /** @throws MonosemError ERR_INVALID_ARGUMENT when the template refuses the conversation */
  render(messages: readonly ChatMessage[], addGenerationPrompt: boolean): string {
    try {
      return this.#template.render({
        ...this.#specialTokens,
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: addGenerationPrompt,
      });
    } catch (error) {
      throw new MonosemError(
        "ERR_INVALID_ARGUMENT",
        `the chat template of ${this.#path} refuses this conversation: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }
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
