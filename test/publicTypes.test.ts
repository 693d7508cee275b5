import { fileURLToPath } from "node:url";
import ts from "typescript";
import { expect, test } from "vitest";

const library = fileURLToPath(new URL("../lib/", import.meta.url));

/** What no caller holds: the addon's side of handles, brands, and what computes a type that is exported itself. */
const internal = new Set([
  ...["NativeCodes", "NativeEntryValues", "NativeFeatureSet", "NativeKeptGradient", "NativeResult", "NativeTensor"],
  ...["Attached", "EntryKernels", "Known", "MayOmitBDec", "OptionsOf", "Places", "SaeShape", "StateArrays"],
  "TrainingOptionsOf",
]);

test("a caller can name every type in a public signature, so that declarations of its own code can be made", () => {
  const options = { module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ESNext, types: ["node"] };
  const program = ts.createProgram([`${library}index.ts`], options);
  const checker = program.getTypeChecker();
  const named = (symbol: ts.Symbol): ts.Symbol =>
    symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
  const index = checker.getSymbolAtLocation(program.getSourceFile(`${library}index.ts`)!)!;
  const exported = new Set(checker.getExportsOfModule(index).map(named));
  const missing = new Set<string>();
  const visit = (node: ts.Node): void => {
    const isPrivate =
      ts.canHaveModifiers(node) && node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.PrivateKeyword);
    const { name } = node as { readonly name?: ts.Node };
    if (isPrivate || ts.isBlock(node) || (name !== undefined && ts.isPrivateIdentifier(name))) return;
    if (ts.isTypeReferenceNode(node)) {
      const symbol = checker.getSymbolAtLocation(node.typeName);
      const found = symbol && named(symbol);
      const isOurs = found?.declarations?.some(
        (declaration) =>
          declaration.getSourceFile().fileName.startsWith(library) && !ts.isTypeParameterDeclaration(declaration),
      );
      if (found && isOurs && !exported.has(found) && !internal.has(found.name)) missing.add(found.name);
    }
    ts.forEachChild(node, visit);
  };
  for (const { declarations = [] } of exported) for (const declaration of declarations) visit(declaration);
  expect([...missing]).toEqual([]);
});
