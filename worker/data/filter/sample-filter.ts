import { CoveyError } from '../../../common/errors.ts';
import { parseWhere, type Row, type Where } from './where.ts';

/** What a filter did; of several clauses that a sample fails, the first is charged. */
export interface FilterReport {
  readonly where: string;
  readonly kept: number;
  readonly dropped: number;
  readonly clauses: readonly {
    readonly clause: string;
    readonly dropped: number;
    /** Of these, samples that lack a value the clause asks for. */
    readonly missing: number;
  }[];
}

/** Columns named in a message. */
const COLUMNS_NAMED_MAX = 40;

/** Decides sample by sample, and counts. */
export class SampleFilter {
  readonly where: Where;
  #kept = 0;
  readonly #dropped: { dropped: number; missing: number }[];
  readonly #seen = new Set<string>();

  /** @throws CoveyError INVALID_ARGUMENT where the expression is none */
  constructor(text: string) {
    this.where = parseWhere(text);
    this.#dropped = this.where.clauses.map(() => ({ dropped: 0, missing: 0 }));
  }

  /** @throws CoveyError INVALID_ARGUMENT, naming column and sample, where a value is of a kind the expression cannot take */
  keeps(row: Row, sample: string): boolean {
    for (const [name, value] of Object.entries(row)) if (value !== undefined) this.#seen.add(name);
    for (const [i, clause] of this.where.clauses.entries()) {
      const result = this.#test(() => clause.test(row), sample);
      if (result === true) continue;
      this.#dropped[i]!.dropped++;
      if (result === null) this.#dropped[i]!.missing++;
      return false;
    }
    this.#kept++;
    return true;
  }

  /** @throws CoveyError INVALID_ARGUMENT where samples were seen, and none had a column that the expression reads */
  checkColumns(): void {
    if (this.#seen.size === 0) return;
    const unknown = this.where.columns.filter((name) => !this.#seen.has(name));
    if (unknown.length === 0) return;
    const known = [...this.#seen].sort();
    const more = known.length > COLUMNS_NAMED_MAX ? `, … (${known.length} in all)` : '';
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot filter by ${JSON.stringify(this.where.text)}: no sample has a column ${unknown.join(', ')}; there are ${known.slice(0, COLUMNS_NAMED_MAX).join(', ')}${more}`,
      { fields: { unknown, columns: known } },
    );
  }

  report(): FilterReport {
    const clauses = this.where.clauses.map(({ text }, i) => ({ clause: text, ...this.#dropped[i]! }));
    const dropped = clauses.reduce((sum, clause) => sum + clause.dropped, 0);
    return { where: this.where.text, kept: this.#kept, dropped, clauses };
  }

  /** @throws CoveyError INVALID_ARGUMENT where nothing was kept, saying which clause took what */
  assertKept(): void {
    const { kept, dropped, clauses } = this.report();
    if (kept > 0 || dropped === 0) return;
    const counts = clauses.map(
      ({ clause, dropped: n, missing }) => `${n} by ${clause}${missing > 0 ? ` (${missing} have no value)` : ''}`,
    );
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot filter by ${JSON.stringify(this.where.text)}: it leaves none of ${dropped} samples: ${counts.join('; ')}`,
      { fields: { report: this.report() } },
    );
  }

  #test(test: () => boolean | null, sample: string): boolean | null {
    try {
      return test();
    } catch (thrown) {
      if (!CoveyError.is(thrown, 'INVALID_ARGUMENT')) throw thrown;
      const { column } = thrown.fields;
      const named = column === undefined ? '' : `column ${column}, `;
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot filter by ${JSON.stringify(this.where.text)}: ${named}sample ${sample}: ${thrown.message}; number(…) and text(…) convert`,
        { fields: { column, sample }, cause: thrown },
      );
    }
  }
}
