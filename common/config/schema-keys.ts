import { z } from 'zod';
import { runConfigSchema } from './run-config.ts';

/** JSON Schema (draft 2020-12) of run.yaml as a person writes it: fields with a default are optional. For editors and `config schema`. */
export function configJsonSchema(): Readonly<Record<string, unknown>> {
  return { ...z.toJSONSchema(runConfigSchema, { io: 'input' }), title: 'covey run' };
}

interface SchemaNode {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly anyOf?: readonly SchemaNode[];
  readonly items?: SchemaNode;
}

let rootNode: SchemaNode | undefined;

/** The schema's alternatives at a path (a union has several); empty where the path is unknown. */
function nodesAt(path: readonly PropertyKey[]): readonly SchemaNode[] {
  rootNode ??= configJsonSchema() as SchemaNode;
  let nodes = alternatives(rootNode);
  for (const key of path) {
    nodes = nodes.flatMap((node) => {
      const member = Object.hasOwn(node.properties ?? {}, key) ? node.properties?.[String(key)] : undefined;
      const next = member ?? (Number.isInteger(Number(key)) ? node.items : undefined);
      return next ? alternatives(next) : [];
    });
  }
  return nodes;
}

const alternatives = (node: SchemaNode): readonly SchemaNode[] => node.anyOf?.flatMap(alternatives) ?? [node];

/** Keys that an object at this path may have. */
export function keysAt(path: readonly PropertyKey[]): readonly string[] {
  return [...new Set(nodesAt(path).flatMap((node) => Object.keys(node.properties ?? {})))];
}

/** True where only text is allowed, so that `--set run=2024` means the text "2024". */
export function isTextAt(path: readonly PropertyKey[]): boolean {
  const nodes = nodesAt(path);
  return nodes.length > 0 && nodes.every((node) => node.type === 'string');
}

/** The key that the writer probably meant, or undefined where none is near. */
export function nearestKey(wrong: string, keys: readonly string[]): string | undefined {
  const plain = plainKey(wrong);
  const ranked = keys
    .map((key) => ({ key, distance: editDistance(plain, plainKey(key)) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  return best && best.distance <= Math.max(1, Math.floor(wrong.length / 3)) ? best.key : undefined;
}

/** Without case and separators: `global_batch`, `GLOBAL_BATCH` and `globalBatch` are one key. */
export function plainKey(key: string): string {
  return key.toLowerCase().replace(/[_-]/g, '');
}

/** Levenshtein distance, with a swap of neighbours as one step (optimal string alignment). */
export function editDistance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i === 0 ? j : j === 0 ? i : 0)),
  );
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, rows[i - 1]![j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      rows[i]![j] = best;
    }
  }
  return rows[a.length]![b.length]!;
}
