import { html } from 'hono/html';
import sharp from 'sharp';
import { predictedClasses } from '../../models/linear/logistic-regression.ts';
import type { PictureSample, PictureSource } from '../../transfer/data/picture-source.ts';
import type { Html } from '../report/line-chart.ts';
import { tileUrl } from './thumbnail.ts';

export interface ShownPicture {
  readonly sample: PictureSample;
  readonly text: string;
  readonly note: string;
}

export interface PictureRow {
  readonly title: string;
  readonly shown: readonly ShownPicture[];
  readonly pictures: PictureSource;
}

/** Pictures as the network sees them, with words below each. */
export async function pictureRow({ title, shown, pictures }: PictureRow, signal: AbortSignal): Promise<Html> {
  const side = pictures.imageSide;
  const pixels = await pictures.evalPixels(
    shown.map(({ sample }) => sample.located),
    signal,
  );
  const tiles: Html[] = [];
  for (const [i, { text, note }] of shown.entries()) {
    const raw = pixels.subarray(i * side * side * 3, (i + 1) * side * side * 3);
    const source = await tileUrl(sharp(raw, { raw: { width: side, height: side, channels: 3 } }));
    tiles.push(
      html`<figure><img class="tile" src="${source}" alt="${text}" width="66" height="66" loading="lazy"><figcaption>${text} <span class="quiet">${note}</span></figcaption></figure>`,
    );
  }
  return html`<div class="row"><div>${title}</div><div class="tiles">${tiles}</div></div>`;
}

/** Rows of pictures under one heading. */
export async function pictureSection(rows: readonly PictureRow[], signal: AbortSignal): Promise<Html> {
  const parts: Html[] = [];
  for (const row of rows) parts.push(await pictureRow(row, signal));
  return html`<section><h2>Pictures</h2>${parts}</section>`;
}

export interface Guess {
  /** Index of the class of highest score. */
  readonly predicted: number;
  /** Its softmax probability. */
  readonly probability: number;
}

/** What each picture is taken for. @param logits_NK class scores, a row per picture */
export function guessesOf(logits_NK: Float64Array, classes: number): Guess[] {
  return [...predictedClasses(logits_NK, classes)].map((predicted, n) => {
    const row = logits_NK.subarray(n * classes, (n + 1) * classes);
    return { predicted, probability: 1 / row.reduce((sum, logit) => sum + Math.exp(logit - row[predicted]!), 0) };
  });
}
