import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { replay } from './transcript.ts';

const FOLDER = path.join(import.meta.dirname, 'transcripts');
/** `COVEY_UPDATE_TRANSCRIPTS=1 npx vitest run tests/coordinator/transcripts` rewrites the answers: read the diff. */
const UPDATE = process.env['COVEY_UPDATE_TRANSCRIPTS'] === '1';

describe('the core answers as its transcripts say', () => {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.txt'));
  it.each(files)('%s', (file) => {
    const transcript = readFileSync(path.join(FOLDER, file), 'utf8');
    const actual = replay(transcript);
    if (UPDATE) writeFileSync(path.join(FOLDER, file), actual);
    else expect(actual).toBe(transcript);
  });
});
