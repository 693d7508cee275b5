import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";
import type { JudgeMessage } from "../../lib/interpretation/chatRequest.js";

/** The body of a request for a chat completion, as far as the tests look at it. */
export interface MockRequest {
  readonly headers: IncomingHttpHeaders;
  readonly path: string;
  readonly body: {
    readonly model: string;
    readonly messages: readonly JudgeMessage[];
    readonly max_tokens?: number;
    readonly max_completion_tokens?: number;
    readonly temperature?: number;
    readonly response_format?: { readonly type: string; readonly json_schema?: { readonly name: string } };
  };
}

export interface MockAnswer {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  /** Sent as it is, if it is text. */
  readonly body?: unknown;
  /** Never answers; "broken" ends the connection instead. */
  readonly hangs?: boolean | "broken";
}

export interface MockServer {
  readonly baseUrl: string;
  /** All requests so far. */
  readonly requests: readonly MockRequest[];
  /** The most requests that were under way at a time. */
  readonly mostAtATime: number;
}

/** A completion that says `content`. */
export function says(content: unknown, finishReason = "stop", usage: object | undefined = USAGE): MockAnswer {
  const text = typeof content === "string" ? content : JSON.stringify(content);
  return { body: { choices: [{ finish_reason: finishReason, message: { role: "assistant", content: text } }], usage } };
}

/** What a mock answer costs unless it says otherwise. */
export const USAGE = { prompt_tokens: 100, completion_tokens: 20 };

/** A server on this machine that answers with `judge`; it is gone after the test. */
export async function startServer(
  judge: (request: MockRequest, index: number) => MockAnswer | Promise<MockAnswer>,
): Promise<MockServer> {
  const requests: MockRequest[] = [];
  let [underWay, mostAtATime] = [0, 0];
  const server = createServer(async (incoming, outgoing) => {
    underWay += 1;
    mostAtATime = Math.max(mostAtATime, underWay);
    let text = "";
    for await (const chunk of incoming.setEncoding("utf8")) text += chunk;
    const request = { headers: incoming.headers, path: incoming.url!, body: JSON.parse(text) };
    requests.push(request);
    const { status = 200, headers = {}, body = {}, hangs = false } = await judge(request, requests.length - 1);
    underWay -= 1;
    if (hangs === "broken") incoming.socket.destroy();
    else if (!hangs) outgoing.writeHead(status, headers).end(typeof body === "string" ? body : JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    requests,
    get mostAtATime() {
      return mostAtATime;
    },
  };
}
