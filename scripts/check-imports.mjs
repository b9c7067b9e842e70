// Holds the import direction of ARCHITECTURE.md: the table below is the rule, the rest finds who breaks it.
//   node scripts/check-imports.mjs [folder]     exit 1 and one line per violation
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';

/** Each folder may import itself and these. Right may import left: common, then proto and engine, models, worker, transfer, cli. */
export const MAY_IMPORT = {
  common: [],
  proto: ['common'],
  engine: ['common'],
  models: ['common', 'proto', 'engine'],
  coordinator: ['common', 'proto'],
  worker: ['common', 'proto', 'engine', 'models'],
  transfer: ['common', 'proto', 'engine', 'models', 'worker'],
  cli: ['common', 'proto', 'engine', 'models', 'coordinator', 'worker', 'transfer'],
  bench: ['common', 'proto', 'engine', 'models', 'coordinator', 'worker', 'transfer', 'cli'],
};

/** The only file that names the bundle; everything else takes `tf` from engine/. */
const TFJS_OWNER = 'engine/tf.ts';

/** Runs the stock tfjs packages in a process of its own, to see whether what covey exports is read by others. */
const STOCK_TFJS = 'cli/verify/tfjs-process.ts';

/** Where the coordinator decides: nothing that has a clock, chance or an effect. Types cost nothing and are allowed. */
const PURE_FOLDER = 'coordinator/core/';
const PURE_MAY_IMPORT = [/^coordinator\/core\//, /^common\/errors\.ts$/, /^common\/config\/run-config\.ts$/];
const IMPURE_NAMES =
  /\b(?:Date\.now|new Date\(|Math\.random|performance\.now|setTimeout|setInterval|setImmediate|process\.|console\.|fetch\()/;

function* sourceFiles(root, folder) {
  let entries;
  try {
    entries = readdirSync(path.join(root, folder), { withFileTypes: true });
  } catch {
    return; // a folder of the plan that does not exist yet
  }
  for (const entry of entries) {
    const relative = `${folder}/${entry.name}`;
    if (entry.isDirectory()) yield* sourceFiles(root, relative);
    else if (entry.name.endsWith('.ts') && !entry.name.endsWith('.d.ts')) yield relative;
  }
}

function importsOf(text) {
  const parsed = ts.createSourceFile('x.ts', text, ts.ScriptTarget.ES2022, false);
  const found = [];
  const add = (node, typeOnly) => {
    if (node && ts.isStringLiteralLike(node)) found.push({ target: node.text, typeOnly, at: node.pos });
  };
  const visit = (node) => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, node.importClause?.isTypeOnly ?? false);
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, node.isTypeOnly);
    else if (ts.isImportTypeNode(node)) add(node.argument.literal, true);
    else if (ts.isCallExpression(node)) {
      const called = node.expression;
      const loads =
        called.kind === ts.SyntaxKind.ImportKeyword || (ts.isIdentifier(called) && called.text === 'require');
      if (loads) add(node.arguments[0], false);
    }
    ts.forEachChild(node, visit);
  };
  visit(parsed);
  return found.map((one) => ({ ...one, line: parsed.getLineAndCharacterOfPosition(one.at).line + 1 }));
}

function directionProblem(file, target) {
  const from = file.split('/')[0];
  const to = target.split('/')[0];
  if (from === to || MAY_IMPORT[from].includes(to)) return undefined;
  return `${from} may not import ${to} (${from} may import: ${MAY_IMPORT[from].join(', ') || 'nothing of covey'})`;
}

function packageProblem(file, specifier) {
  if (specifier.startsWith('#tfjs') && file !== TFJS_OWNER)
    return `only ${TFJS_OWNER} imports #tfjs; take \`tf\` from engine/index.ts`;
  if (specifier.startsWith('@tensorflow/') && file !== STOCK_TFJS)
    return 'nobody imports @tensorflow packages: the bundle holds the one registry; take `tf` from engine/index.ts';
  return undefined;
}

function impureProblem(file, specifier, target, typeOnly) {
  if (!file.startsWith(PURE_FOLDER) || typeOnly) return undefined;
  if (target !== undefined && PURE_MAY_IMPORT.some((pattern) => pattern.test(target))) return undefined;
  return `${PURE_FOLDER} is pure: it may not import ${specifier}`;
}

function nativeProblem(file, specifier) {
  if (file.startsWith('engine/') || !(specifier.endsWith('.node') || /engine\/native(\/|$)/.test(specifier)))
    return undefined;
  return 'only engine/ loads native code';
}

function problemsOfImport(file, { target: specifier, typeOnly }) {
  const relative = specifier.startsWith('.');
  const target = relative ? path.posix.normalize(path.posix.join(path.posix.dirname(file), specifier)) : undefined;
  return [
    target === undefined ? packageProblem(file, specifier) : directionProblem(file, target),
    impureProblem(file, specifier, target, typeOnly),
    nativeProblem(file, target ?? specifier),
  ].filter((problem) => problem !== undefined);
}

/** `file:line: problem` for each violation below `root`. */
export function findViolations(root) {
  const violations = [];
  for (const folder of Object.keys(MAY_IMPORT)) {
    for (const file of sourceFiles(root, folder)) {
      const text = readFileSync(path.join(root, file), 'utf8');
      for (const one of importsOf(text)) {
        for (const problem of problemsOfImport(file, one)) violations.push(`${file}:${one.line}: ${problem}`);
      }
      if (!file.startsWith('engine/') && /process\.dlopen|['"`][^'"`\n]*\.node['"`]/.test(text))
        violations.push(`${file}: only engine/ loads native code`);
      if (file.startsWith(PURE_FOLDER)) {
        for (const [index, line] of text.split('\n').entries()) {
          if (IMPURE_NAMES.test(line.replace(/^\s*(\/\/|\*|\/\*).*/, '')))
            violations.push(`${file}:${index + 1}: ${PURE_FOLDER} is pure: ${line.trim()}`);
        }
      }
    }
  }
  return violations;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const root = process.argv[2] ?? path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
  const violations = findViolations(root);
  for (const violation of violations) process.stderr.write(`${violation}\n`);
  process.exitCode = violations.length === 0 ? 0 : 1;
}
