import Table from 'cli-table3';
import picocolors from 'picocolors';

export interface OutputOptions {
  /** Only JSON on stdout: one value per command, or one object per line where a command follows something. */
  readonly json: boolean;
  /** No messages on stderr except errors. */
  readonly quiet: boolean;
  readonly color: boolean;
}

export interface OutputModules {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
}

export type Cell = string | number;

/** Where a command writes: data on stdout, everything said to a person on stderr (clig.dev). */
export class Output {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly colors: ReturnType<typeof picocolors.createColors>;
  readonly stderr: OutputModules['stderr'];
  readonly #stdout: NodeJS.WritableStream;

  constructor(options: OutputOptions, modules: OutputModules) {
    this.json = options.json;
    this.quiet = options.quiet;
    this.colors = picocolors.createColors(options.color);
    this.#stdout = modules.stdout;
    this.stderr = modules.stderr;
  }

  /** A command's result: `value` as JSON with --json, otherwise the text. */
  result(value: unknown, text: string): void {
    this.#stdout.write(this.json ? `${JSON.stringify(value)}\n` : `${text}\n`);
  }

  /** One more object of a stream of JSON lines, or one more line of text. */
  line(value: unknown, text: string): void {
    this.result(value, text);
  }

  /** Said to the person, not part of the result. */
  message(text: string): void {
    if (!this.quiet) this.stderr.write(`${text}\n`);
  }

  warn(text: string): void {
    this.stderr.write(`${this.colors.yellow('warning:')} ${text}\n`);
  }

  /** A borderless table as text, columns aligned, numbers to the right. */
  table(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
    const none = [
      'top',
      'top-mid',
      'top-left',
      'top-right',
      'bottom',
      'bottom-mid',
      'bottom-left',
      'bottom-right',
      'left',
      'left-mid',
      'mid',
      'mid-mid',
      'right',
      'right-mid',
    ];
    const numeric = head.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'));
    const table = new Table({
      head: head.map((name) => this.colors.bold(name)),
      chars: { ...Object.fromEntries(none.map((name) => [name, ''])), middle: '  ' },
      colAligns: numeric.map((right) => (right ? 'right' : 'left')),
      style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    });
    for (const row of rows) table.push(row.map(String));
    return table
      .toString()
      .split('\n')
      .map((line) => line.trimEnd())
      .join('\n');
  }
}
