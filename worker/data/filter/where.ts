import jsep from 'jsep';
import { CoveyError } from '../../../common/errors.ts';

/** A sample's columns by name. */
export type Row = Readonly<Record<string, unknown>>;
/** What an expression works on; null where a sample has no value. */
export type Value = string | number | boolean | null;

/** One of the conditions that `and` joins at the top. */
export interface Clause {
  readonly text: string;
  /** null: it cannot be told, because a value is missing; the sample is then left out, as in SQL. */
  test(row: Row): boolean | null;
}

export interface Where {
  readonly text: string;
  readonly clauses: readonly Clause[];
  /** Columns that it reads. */
  readonly columns: readonly string[];
}

/** A value of a kind that an operator cannot take. `column` where it is one's. */
function kindError(message: string, column: string | undefined): CoveyError {
  return new CoveyError('INVALID_ARGUMENT', message, { fields: { column } });
}

const CHARACTERS_MAX = 2000;
const DEPTH_MAX = 50;

// jsep is one parser for the process; these words are operators from here on.
jsep.addBinaryOp('or', 1);
jsep.addBinaryOp('and', 2);
jsep.addBinaryOp('in', 6);
jsep.addBinaryOp('=', 6);
jsep.addBinaryOp('<>', 6);
jsep.addUnaryOp('not');

const SAME: Readonly<Record<string, string>> = {
  '||': 'or',
  '&&': 'and',
  '=': '==',
  '===': '==',
  '!==': '!=',
  '<>': '!=',
};

type Evaluate = (row: Row) => Value;
type Node = jsep.Expression;

/**
 * Parses a condition on a sample's columns: comparisons (== != < <= > >=), `and`, `or`, `not (…)`, `in ["a", "b"]`, arithmetic and the
 * functions of FUNCTIONS. Nothing else exists in it: an expression is walked, never run as code. A missing value makes a comparison
 * unknown, and `and`, `or`, `not` follow SQL's three-valued logic.
 * @throws CoveyError INVALID_ARGUMENT
 */
export function parseWhere(text: string): Where {
  if (text.length > CHARACTERS_MAX) throw refused(text, `it has ${text.length} characters, at most ${CHARACTERS_MAX}`);
  if (text.trim() === '') throw refused(text, 'it is empty');
  let root: Node;
  try {
    root = jsep(text);
  } catch (thrown) {
    throw refused(text, thrown instanceof Error ? thrown.message : String(thrown));
  }
  const columns = new Set<string>();
  const compiler = new Compiler(text, columns);
  const clauses = conjuncts(root).map((node): Clause => {
    const evaluate = compiler.compile(node);
    const clause = printed(node);
    return { text: clause, test: (row) => asBoolean(evaluate(row), clause, columnOf(node)) };
  });
  if (columns.size === 0) throw refused(text, 'it names no column');
  return { text, clauses, columns: [...columns].sort() };
}

function refused(text: string, reason: string): CoveyError {
  const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot filter by ${JSON.stringify(shown)}: ${reason}; write e.g. width >= 256 and similarity > 0.3 and LANGUAGE == "en"`,
  );
}

function conjuncts(node: Node): Node[] {
  if (node.type !== 'BinaryExpression' || operatorOf(node) !== 'and') return [node];
  return [...conjuncts(node['left'] as Node), ...conjuncts(node['right'] as Node)];
}

function operatorOf(node: Node): string {
  const operator = String(node['operator']);
  return SAME[operator] ?? operator;
}

class Compiler {
  readonly #text: string;
  readonly #columns: Set<string>;

  constructor(text: string, columns: Set<string>) {
    this.#text = text;
    this.#columns = columns;
  }

  compile(node: Node, depth = 0): Evaluate {
    if (depth > DEPTH_MAX) throw refused(this.#text, 'it is nested too deeply');
    const part = (key: string) => this.compile(node[key] as Node, depth + 1);
    switch (node.type) {
      case 'Literal':
        return this.#literal(node['value']);
      case 'Identifier':
        return this.#column(String(node['name']));
      case 'UnaryExpression':
        return this.#unary(node, part('argument'));
      case 'BinaryExpression':
        if (operatorOf(node) === 'in') return this.#membership(node, part('left'));
        return this.#binary(node, part('left'), part('right'));
      case 'CallExpression':
        return this.#call(node, depth);
      default:
        throw refused(this.#text, `${printed(node)} is not part of the language`);
    }
  }

  #literal(value: unknown): Evaluate {
    if (value === null || ['string', 'number', 'boolean'].includes(typeof value)) return () => value as Value;
    throw refused(this.#text, 'literals are numbers, quoted text, true, false and null');
  }

  #column(name: string): Evaluate {
    this.#columns.add(name);
    return (row) => columnValue(row, name);
  }

  #unary(node: Node, argument: Evaluate): Evaluate {
    const operator = operatorOf(node);
    const at = columnOf(node['argument'] as Node);
    if (operator === 'not' || operator === '!') {
      return (row) => {
        const value = asBoolean(argument(row), printed(node), at);
        return value === null ? null : !value;
      };
    }
    if (operator === '-') {
      return (row) => {
        const value = asNumber(argument(row), printed(node), at);
        return value === null ? null : -value;
      };
    }
    throw refused(this.#text, `there is no operator ${operator}`);
  }

  #binary(node: Node, left: Evaluate, right: Evaluate): Evaluate {
    const operator = operatorOf(node);
    const clause = printed(node);
    const at = columnOf(node['left'] as Node) ?? columnOf(node['right'] as Node);
    if (operator === 'and' || operator === 'or') {
      const decisive = operator === 'or';
      return (row) => {
        const first = asBoolean(left(row), clause, at);
        if (first === decisive) return decisive;
        const second = asBoolean(right(row), clause, at);
        if (second === decisive) return decisive;
        return first === null || second === null ? null : !decisive;
      };
    }
    const compare = COMPARISONS[operator];
    if (compare !== undefined) {
      return (row) => {
        const [a, b] = [left(row), right(row)];
        if (a === null || b === null) return null;
        if (typeof a !== typeof b) throw kindError(`${clause}: ${shown(a)} is compared with ${shown(b)}`, at);
        return compare(a, b);
      };
    }
    const arithmetic = ARITHMETIC[operator];
    if (arithmetic === undefined) throw refused(this.#text, `there is no operator ${operator}`);
    return (row) => {
      const [a, b] = [asNumber(left(row), clause, at), asNumber(right(row), clause, at)];
      return a === null || b === null ? null : finite(arithmetic(a, b));
    };
  }

  #membership(node: Node, left: Evaluate): Evaluate {
    const list = node['right'] as Node;
    const elements = (list['elements'] ??
      list['expressions'] ??
      (list.type === 'Literal' ? [list] : [])) as (Node | null)[];
    const values = elements.map((one) => {
      if (one?.type !== 'Literal') throw refused(this.#text, 'after `in` comes a list of values, e.g. ["en", "de"]');
      return this.#literal(one['value'])({});
    });
    if (values.length === 0) throw refused(this.#text, 'after `in` comes a list of values, e.g. ["en", "de"]');
    const kinds = new Set(values.map((value) => typeof value));
    return (row) => {
      const value = left(row);
      if (value === null) return null;
      if (!kinds.has(typeof value)) {
        throw kindError(
          `${printed(node)}: ${shown(value)} is of another kind than the list`,
          columnOf(node['left'] as Node),
        );
      }
      return values.includes(value);
    };
  }

  #call(node: Node, depth: number): Evaluate {
    const callee = node['callee'] as Node;
    const name = String(callee['name']);
    const args = node['arguments'] as Node[];
    if (name === 'has' && args.length === 1 && args[0]!.type === 'Identifier') {
      const column = this.#column(String(args[0]!['name']));
      return (row) => column(row) !== null;
    }
    const found = callee.type === 'Identifier' && Object.hasOwn(FUNCTIONS, name) ? FUNCTIONS[name] : undefined;
    if (found === undefined || found.arity !== args.length) {
      const known = Object.entries(FUNCTIONS).map(([one, { arity }]) => `${one}/${arity}`);
      throw refused(
        this.#text,
        `there is no ${printed(callee)} of ${args.length} arguments; there are has/1, ${known.join(', ')}`,
      );
    }
    const values = args.map((arg) => this.compile(arg, depth + 1));
    const at = args.map(columnOf).find((one) => one !== undefined);
    return (row) => {
      const given = values.map((evaluate) => evaluate(row));
      if (given.includes(null)) return null;
      try {
        return found.apply(given as (string | number | boolean)[]);
      } catch (thrown) {
        if (!CoveyError.is(thrown, 'INVALID_ARGUMENT')) throw thrown;
        throw kindError(`${printed(node)}: ${thrown.message}`, at);
      }
    };
  }
}

type Known = string | number | boolean;
const COMPARISONS: Readonly<Record<string, (a: Known, b: Known) => boolean>> = {
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<': (a, b) => a < b,
  '<=': (a, b) => a <= b,
  '>': (a, b) => a > b,
  '>=': (a, b) => a >= b,
};
const ARITHMETIC: Readonly<Record<string, (a: number, b: number) => number>> = {
  '+': (a, b) => a + b,
  '-': (a, b) => a - b,
  '*': (a, b) => a * b,
  '/': (a, b) => a / b,
  '%': (a, b) => a % b,
};
const FUNCTIONS: Readonly<
  Record<string, { readonly arity: number; readonly apply: (given: readonly Known[]) => Value }>
> = {
  lower: { arity: 1, apply: ([text]) => asText(text!).toLowerCase() },
  length: { arity: 1, apply: ([text]) => [...asText(text!)].length },
  contains: { arity: 2, apply: ([text, part]) => asText(text!).includes(asText(part!)) },
  startsWith: { arity: 2, apply: ([text, part]) => asText(text!).startsWith(asText(part!)) },
  number: {
    arity: 1,
    apply: ([value]) => (typeof value === 'string' && value.trim() === '' ? null : finite(Number(value))),
  },
  text: { arity: 1, apply: ([value]) => String(value) },
};

/** What lies under a name: numbers that are none (NaN in a table of floats) count as missing, as null does. */
function columnValue(row: Row, name: string): Value {
  const value = Object.hasOwn(row, name) ? row[name] : undefined;
  if (value === undefined || value === null) return null;
  if (typeof value === 'number') return Number.isNaN(value) ? null : value;
  if (typeof value === 'bigint') return Number(value);
  if (typeof value === 'string' || typeof value === 'boolean') return value;
  throw kindError(`${name}: it is a list or an object`, name);
}

function asBoolean(value: Value, clause: string, column: string | undefined): boolean | null {
  if (value === null || typeof value === 'boolean') return value;
  throw kindError(`${clause}: ${shown(value)} is no condition`, column);
}

function asNumber(value: Value, clause: string, column: string | undefined): number | null {
  if (value === null || typeof value === 'number') return value;
  throw kindError(`${clause}: ${shown(value)} is no number`, column);
}

function asText(value: Known): string {
  if (typeof value === 'string') return value;
  throw kindError(`${shown(value)} is no text`, undefined);
}

const finite = (value: number) => (Number.isFinite(value) ? value : null);

function shown(value: Value): string {
  const text = JSON.stringify(value);
  const kind = typeof value === 'string' ? 'text' : typeof value;
  return `the ${kind} ${text.length > 60 ? `${text.slice(0, 60)}…` : text}`;
}

/** The column that a part of an expression is about, where it is about one alone. */
function columnOf(node: Node): string | undefined {
  if (node.type === 'Identifier') return String(node['name']);
  if (node.type === 'UnaryExpression') return columnOf(node['argument'] as Node);
  if (node.type === 'BinaryExpression') return columnOf(node['left'] as Node) ?? columnOf(node['right'] as Node);
  return undefined;
}

/** The expression in one spelling. */
function printed(node: Node): string {
  const inner = (key: string) => {
    const child = node[key] as Node;
    const compound =
      child.type === 'BinaryExpression' && (node.type === 'UnaryExpression' || operatorOf(child) !== operatorOf(node));
    const loose = ['and', 'or'].includes(compound ? operatorOf(child) : '') || node.type === 'UnaryExpression';
    return compound && loose ? `(${printed(child)})` : printed(child);
  };
  switch (node.type) {
    case 'Literal':
      return JSON.stringify(node['value']) ?? String(node['raw']);
    case 'Identifier':
      return String(node['name']);
    case 'UnaryExpression':
      return operatorOf(node) === '-' ? `-${inner('argument')}` : `not ${inner('argument')}`;
    case 'BinaryExpression':
      return `${inner('left')} ${operatorOf(node)} ${inner('right')}`;
    case 'CallExpression':
      return `${printed(node['callee'] as Node)}(${(node['arguments'] as Node[]).map(printed).join(', ')})`;
    case 'ArrayExpression':
    case 'SequenceExpression': {
      const elements = (node['elements'] ?? node['expressions']) as (Node | null)[];
      return `[${elements.map((one) => (one === null ? '' : printed(one))).join(', ')}]`;
    }
    default:
      return `this ${node.type.replace(/Expression$/, '').toLowerCase()}`;
  }
}
