import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { sha256Hex } from '../../worker/data/sha256.ts';
import { isTraversal, listTar, splitMemberName } from '../../worker/data/tar-index.ts';
import { samplesOfTar } from '../../worker/data/tar-samples.ts';
import { tarOf, temporaryFolder } from '../support/datasets.ts';

async function* chunksOf(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += size) yield bytes.subarray(offset, offset + size);
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const good = tarOf([
  ['a/0.jpg', 'JPEG'],
  ['a/0.txt', 'a cat '],
  ['a/0.json', '{"url":"http://x/y","caption":"other"}'],
  ['1.PNG', 'PNG'],
  ['1.json', '{"captions":["one","two"],"label":3}'],
]);
const hasTar = spawnSync('tar', ['--version']).status === 0;

describe('listTar', () => {
  it.each([1, 100, 512, 513, 1e6])('finds every member and its bytes, fed %i bytes at a time', async (size) => {
    const listing = await listTar(chunksOf(good, size));
    expect(
      listing.members.map(({ name, offset, sizeBytes }) => [name, text(good.subarray(offset, offset + sizeBytes))]),
    ).toEqual([
      ['a/0.jpg', 'JPEG'],
      ['a/0.txt', 'a cat '],
      ['a/0.json', '{"url":"http://x/y","caption":"other"}'],
      ['1.PNG', 'PNG'],
      ['1.json', '{"captions":["one","two"],"label":3}'],
    ]);
    expect(listing).toMatchObject({ problems: [], bytes: good.length, sha256: sha256Hex(good) });
  });

  it.each(['gnu', 'pax', 'ustar'])('reads names longer than 100 bytes as GNU tar writes them in %s', async (format) => {
    if (!hasTar) return;
    const folder = await temporaryFolder();
    const name =
      format === 'ustar' ? `${'d'.repeat(90)}/${'n'.repeat(60)}.txt` : `${'d'.repeat(120)}/${'é'.repeat(60)}.txt`;
    mkdirSync(path.join(folder.path, path.dirname(name)));
    writeFileSync(path.join(folder.path, name), 'long');
    execFileSync('tar', [`--format=${format}`, '-cf', 'x.tar', path.dirname(name)], { cwd: folder.path });
    const tar = readFileSync(path.join(folder.path, 'x.tar'));
    const { members } = await listTar(chunksOf(tar, 1000));
    expect(
      members.map((member) => [member.name, text(tar.subarray(member.offset, member.offset + member.sizeBytes))]),
    ).toEqual([[name, 'long']]);
    await folder.remove();
  });

  it('keeps what stands before a truncated tail', async () => {
    for (const cut of [5 * 1024 - 100, 4 * 1024 + 600, 4 * 1024 + 100]) {
      const listing = await listTar(chunksOf(good.subarray(0, Math.min(cut, good.length)), 700));
      expect(listing.members.map((member) => member.name)).toContain('a/0.json');
      expect(listing.members.length + listing.problems.length).toBeGreaterThanOrEqual(4);
    }
    const inBody = good.subarray(0, 512 + 2);
    expect(await listTar(chunksOf(inBody, 700))).toMatchObject({
      members: [],
      problems: [{ name: 'a/0.jpg', reason: 'truncated' }],
    });
    const inHeader = good.subarray(0, 1024 + 99);
    expect((await listTar(chunksOf(inHeader, 700))).problems).toEqual([
      { name: '(header at byte 1024)', reason: 'truncated' },
    ]);
  });

  it('names and leaves out members that are empty, escape, have no extension or a corrupt header', async () => {
    const tar = tarOf([
      ['0.jpg', ''],
      ['../x.jpg', 'x'],
      ['/etc/x.jpg', 'x'],
      ['README', 'x'],
      ['._0.jpg', 'x'],
      ['ok.txt', 'fine'],
      ['bad.txt', 'x'],
    ]);
    tar[tar.indexOf('bad.txt')] = 0x2a;
    const { members, problems } = await listTar(chunksOf(tar, 512));
    expect(members.map((member) => member.name)).toEqual(['ok.txt']);
    expect(problems.map((problem) => problem.reason)).toEqual([
      'zero-byte',
      'traversal-name',
      'traversal-name',
      'no-extension',
      'no-extension',
      'corrupt-header',
    ]);
  });

  it('never fails on noise', async () => {
    const noise = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256);
    expect((await listTar(chunksOf(noise, 333))).problems).toEqual([
      { name: '(header at byte 0)', reason: 'corrupt-header' },
    ]);
  });
});

describe('names', () => {
  it('are split at the first dot of the last part', () => {
    expect(splitMemberName('a.b/c.SEG.png')).toEqual({ key: 'a.b/c', extension: 'seg.png' });
    expect(splitMemberName('a.b/c')).toBeUndefined();
  });

  it('that escape are known', () => {
    for (const name of ['/a', '..', 'a/../b', 'a\\..\\b', 'C:/x', 'a\0b']) expect(isTraversal(name)).toBe(true);
    for (const name of ['a', 'a..b/c', '...']) expect(isTraversal(name)).toBe(false);
  });
});

describe('samplesOfTar', () => {
  it('groups members, prefers the text file and takes several captions from the json', async () => {
    const { samples, skipped } = samplesOfTar(await listTar(chunksOf(good, 4096)));
    expect(skipped).toEqual([]);
    expect(samples).toMatchObject([
      { key: 'a/0', image: 'jpg', captions: ['a cat'], meta: { url: 'http://x/y' } },
      { key: '1', image: 'png', captions: ['one', 'two'], label: 3 },
    ]);
  });

  it('reports each incomplete or doubled sample once', async () => {
    const tar = tarOf([
      ['0.txt', 'no picture'],
      ['1.jpg', 'no caption'],
      ['2.jpg', ''],
      ['2.txt', 'empty picture'],
      ['3.jpg', 'x'],
      ['3.txt', 'fine'],
      ['3.jpg', 'again'],
      ['4.jpg', 'x'],
      ['4.json', 'not json'],
    ]);
    const { samples, skipped } = samplesOfTar(await listTar(chunksOf(tar, 4096)));
    expect(samples.map((sample) => sample.key)).toEqual(['3']);
    expect(skipped).toEqual([
      { name: '2.jpg', reason: 'zero-byte' },
      { name: '3.jpg', reason: 'duplicate' },
      { name: '0', reason: 'caption-without-image' },
      { name: '1', reason: 'image-without-caption' },
      { name: '4', reason: 'image-without-caption' },
    ]);
  });
});
