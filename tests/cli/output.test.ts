import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { wantsColor } from '../../cli/context.ts';
import { formatBytes, formatDuration, formatNumber } from '../../cli/format.ts';
import { Output } from '../../cli/output.ts';
import { StatusLine } from '../../cli/status-line.ts';

/** Keeps what is written; optionally pretends to be a terminal. */
class Captured extends Writable {
  text = '';
  readonly isTTY: boolean;
  readonly columns: number;
  constructor(isTTY = false, columns = 80) {
    super({ decodeStrings: false });
    this.isTTY = isTTY;
    this.columns = columns;
  }
  override _write(chunk: string, _encoding: string, done: () => void): void {
    this.text += chunk;
    done();
  }
}

function outputTo(options: { json?: boolean; quiet?: boolean; isTTY?: boolean; columns?: number } = {}) {
  const stdout = new Captured();
  const stderr = new Captured(options.isTTY, options.columns);
  const output = new Output(
    { json: options.json ?? false, quiet: options.quiet ?? false, color: false },
    { stdout, stderr },
  );
  return { stdout, stderr, output };
}

describe('Output', () => {
  it('writes text for people, and with --json only JSON on stdout', () => {
    const plain = outputTo();
    plain.output.result({ a: 1 }, 'a is 1');
    expect(plain.stdout.text).toBe('a is 1\n');
    const json = outputTo({ json: true });
    json.output.result({ a: 1 }, 'a is 1');
    json.output.message('said to a person');
    expect(JSON.parse(json.stdout.text)).toEqual({ a: 1 });
    expect(json.stderr.text).toBe('said to a person\n');
  });

  it('says nothing but errors and results with --quiet', () => {
    const { output, stdout, stderr } = outputTo({ quiet: true });
    output.message('by the way');
    output.result(1, 'one');
    expect([stdout.text, stderr.text]).toEqual(['one\n', '']);
  });

  it('aligns tables: text left, numbers right, no trailing blanks', () => {
    const { output } = outputTo();
    expect(
      output.table(
        ['run', 'steps'],
        [
          ['a', 5],
          ['long-name', 1000],
        ],
      ),
    ).toBe('run        steps\na              5\nlong-name   1000');
  });
});

describe('StatusLine', () => {
  it('rewrites one line on a terminal, cut to its width, and leaves nothing behind', () => {
    const { output, stderr } = outputTo({ isTTY: true, columns: 20 });
    let now = 0;
    const line = new StatusLine(output, () => now);
    line.update('step 1');
    now += 1000;
    line.update('a text that is longer than the terminal is wide');
    line.print('an event');
    line.close();
    const drawn = stderr.text.split('\r\x1b[2K');
    expect(drawn[1]).toBe('step 1');
    expect(drawn[2]).toHaveLength(19);
    expect(drawn[2]).toMatch(/…$/);
    expect(drawn[3]).toMatch(/^an event\n/);
    expect(drawn.at(-1)).toBe('');
  });

  it('prints a plain line now and then where there is no terminal', () => {
    const { output, stderr } = outputTo();
    let now = 0;
    const line = new StatusLine(output, () => now);
    for (let step = 0; step <= 200; step++) {
      now = step * 100;
      line.update(`step ${step}`);
    }
    expect(stderr.text).toBe('step 0\nstep 100\nstep 200\n');
  });

  it('is silent with --json and --quiet', () => {
    for (const options of [{ json: true }, { quiet: true }]) {
      const { output, stderr } = outputTo({ ...options, isTTY: true });
      new StatusLine(output, () => 0).update('step 1');
      expect(stderr.text).toBe('');
    }
  });
});

describe('formats', () => {
  it('give sizes and durations as people read them', () => {
    expect([0, 1023, 1536, 5 * 2 ** 30].map(formatBytes)).toEqual(['0 B', '1023 B', '1.5 KiB', '5 GiB']);
    expect([0, 59.4, 60, 200, 7500, Number.NaN, -1].map(formatDuration)).toEqual([
      '0 s',
      '59 s',
      '1 min',
      '3 min 20 s',
      '2 h 5 min',
      '–',
      '–',
    ]);
    expect([formatNumber(1.23456, 2), formatNumber(undefined, 2)]).toEqual(['1.23', '–']);
  });
});

describe('colour', () => {
  it('follows NO_COLOR, --no-color, dumb terminals and FORCE_COLOR', () => {
    expect(wantsColor({}, {}, true)).toBe(true);
    expect(wantsColor({}, {}, false)).toBe(false);
    expect(wantsColor({}, { FORCE_COLOR: '1' }, false)).toBe(true);
    expect(wantsColor({}, { NO_COLOR: '1', FORCE_COLOR: '1' }, true)).toBe(false);
    expect(wantsColor({ color: false }, {}, true)).toBe(false);
    expect(wantsColor({}, { TERM: 'dumb' }, true)).toBe(false);
  });
});
