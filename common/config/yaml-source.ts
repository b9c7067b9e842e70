import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import type { ConfigProblem } from './problems.ts';

export interface Position {
  readonly line: number;
  readonly column: number;
}

/** A parsed YAML file that knows where each of its values stands. */
export class YamlSource {
  /** Syntax errors and doubled keys; the value is unusable when there are any. */
  readonly problems: readonly ConfigProblem[];
  readonly #document: Document;
  readonly #lines = new LineCounter();

  constructor(text: string) {
    this.#document = parseDocument(text, {
      lineCounter: this.#lines,
      uniqueKeys: true,
      prettyErrors: false,
      merge: true,
    });
    this.problems = this.#document.errors.map((error) => {
      const message = error.code === 'DUPLICATE_KEY' ? 'key appears twice' : `not valid YAML: ${error.message}`;
      return { path: '', message, ...this.#position(error.pos[0]) };
    });
  }

  /** Plain objects, arrays and scalars. An empty file is an empty object. */
  value(): unknown {
    return this.#document.toJS({ maxAliasCount: 100 }) ?? {};
  }

  /** Position of the key at `path`; of the nearest parent that exists where `path` does not. */
  positionOf(path: readonly string[]): Position {
    for (let depth = path.length; depth > 0; depth--) {
      const position = this.exactPositionOf(path.slice(0, depth));
      if (position) return position;
    }
    return { line: 1, column: 1 };
  }

  /** Position of the key (or list item) at `path`, or undefined where the file has none. */
  exactPositionOf(path: readonly string[]): Position | undefined {
    const parent = path.length === 1 ? this.#document.contents : this.#document.getIn(path.slice(0, -1), true);
    const last = path.at(-1);
    if (isMap(parent)) {
      const pair = parent.items.find((item) => isScalar(item.key) && String(item.key.value) === last);
      return isNode(pair?.key) && pair.key.range ? this.#position(pair.key.range[0]) : undefined;
    }
    const item = this.#document.getIn(path, true);
    return isNode(item) && item.range ? this.#position(item.range[0]) : undefined;
  }

  #position(offset: number): Position {
    const { line, col } = this.#lines.linePos(offset);
    return { line, column: col };
  }
}
