import { createHash } from "node:crypto";
import { visibleHtml } from "./visibleText.js";

/**
 * One self-contained HTML page: no script, no network (a Content-Security-Policy forbids both), no styles other than
 * the one style sheet, which the policy admits by its hash. Works as a file, and under any server.
 *
 * @param page.title any text; it is escaped
 * @param page.body HTML: what it holds of unknown origin must be escaped already
 */
export function htmlPage({ title, style, body }: { title: string; style: string; body: string }): string {
  const { head, tail } = htmlFrame({ title, style });
  return `${head}${body}${tail}`;
}

/** What stands before and after the body in such a page, for bodies that are written piece by piece. */
export function htmlFrame({ title, style }: { title: string; style: string }): { head: string; tail: string } {
  const styleHash = createHash("sha256").update(style).digest("base64");
  const policy = `default-src 'none'; style-src 'sha256-${styleHash}'; base-uri 'none'; form-action 'none'`;
  const head = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${visibleHtml(title)}</title>
<style>${style}</style>
</head>
<body>
`;
  return { head, tail: "\n</body>\n</html>\n" };
}
